"""Following: several answers read at once as they are written, in the order in which their pieces come.

A reader that is slow holds them up: nothing but a few pieces is read ahead. Knows no form of HTTP.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence

from lorapool.producer.client.handle import JobHandle
from lorapool.producer.client.stream import TextDelta
from lorapool.producer.gateway.cursor import Piece
from lorapool.producer.gateway.errors import NEVER, ApiError
from lorapool.shared.errors import InvalidRequest
from lorapool.shared.job import Result
from lorapool.shared.tasks import cancel_and_wait

AHEAD = 64  # pieces
Item = tuple[int, Piece | Result]
_RESTARTED = ApiError(
    500,
    "a later attempt of this job wrote another text than the one that was sent; ask again for it by its id",
    kind="server_error",
    code="restarted",
    headers=NEVER,
)


async def followed(handles: Sequence[JobHandle], ping_s: float) -> AsyncGenerator[list[Item], None]:
    """Pieces by the number of their answer, its Result last; nothing, when none has come for ``ping_s``.

    Raises what a job of them ended with.
    """
    items: asyncio.Queue[Item | Exception] = asyncio.Queue(AHEAD)
    tasks = [asyncio.create_task(_follow(index, handle, items)) for index, handle in enumerate(handles)]
    left = len(handles)
    try:
        while left:
            batch = await _next(items, ping_s)
            left -= sum(isinstance(what, Result) for _, what in batch)
            yield _joined(batch)
    finally:
        await cancel_and_wait(*tasks)


async def _next(items: asyncio.Queue[Item | Exception], ping_s: float) -> list[Item]:
    batch: list[Item] = []
    try:
        async with asyncio.timeout(ping_s):
            item = await items.get()
    except TimeoutError:
        return batch
    while True:
        if isinstance(item, Exception):
            raise item
        batch.append(item)
        if items.empty():
            return batch
        item = items.get_nowait()


def _joined(batch: list[Item]) -> list[Item]:
    """What came meanwhile of the same answer, as one piece."""
    if len(batch) < 2:
        return batch
    joined: list[Item] = []
    for index, what in batch:
        last = joined[-1] if joined else None
        if last is not None and last[0] == index and isinstance(what, Piece) and isinstance(last[1], Piece):
            before = last[1]
            both = Piece(before.text + what.text, before.logprobs + what.logprobs, before.calls + what.calls)
            joined[-1] = (index, both)
        else:
            joined.append((index, what))
    return joined


async def _follow(index: int, handle: JobHandle, items: asyncio.Queue[Item | Exception]) -> None:
    try:
        try:
            async for delta in handle.stream():
                await items.put((index, _piece(delta)))
        except InvalidRequest:  # it was submitted without a stream: the whole at its end
            pass
        await items.put((index, await handle.result()))
    except Exception as error:  # noqa: BLE001 - handed on to who reads
        await items.put(error)


def _piece(delta: TextDelta) -> Piece:
    if delta.restart:
        raise _RESTARTED
    return Piece(delta.text, delta.more.logprobs, delta.more.tool_calls)
