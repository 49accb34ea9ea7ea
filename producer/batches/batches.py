"""Batches: for whoever sees the place where a pool's files lie: hand a file in, follow the batch, fetch its answers.

What feeds a batch is a gateway over the same place. Knows no terminal and no HTTP.
"""

from __future__ import annotations

import asyncio
import json
import secrets
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping
from pathlib import Path

from lorapool.producer.batches.files import Files
from lorapool.producer.batches.store import store_at
from lorapool.producer.client.client import Client
from lorapool.shared.batches.batch_record import BatchRecord, BatchStatus
from lorapool.shared.errors import FilesUnavailable, InvalidRequest

ENDPOINTS = ("/v1/chat/completions", "/v1/completions", "/v1/responses")
LOOK_S = 0.5
_BLOCK = 1 << 20


class Batches:
    """Of the pool of an open client; ``location`` is the gateways' own."""

    def __init__(self, client: Client, location: str) -> None:
        self._client, self._book, self._location = client, client.batches, location
        self._opened: Files | None = None

    async def submit(
        self,
        path: Path,
        *,
        endpoint: str | None = None,
        agent: str = "anonymous",
        window_s: int = 86_400,
        metadata: Mapping[str, str] | None = None,
    ) -> BatchRecord:
        """Store a file of requests, a JSON object a line, and make a batch of it; ``endpoint`` is the first line's.

        Raises InvalidRequest, QueueFull, FilesUnavailable.
        """
        endpoint = endpoint or await asyncio.to_thread(_endpoint_of, path)
        if endpoint not in ENDPOINTS:
            raise InvalidRequest(f"endpoint = {endpoint!r:.60}: expected one of {', '.join(ENDPOINTS)}")
        file = await (await self._files()).put(agent, path.name, _pieces(path))
        batch = BatchRecord(
            id=f"batch_{secrets.token_hex(12)}",
            agent=agent,
            operator=True,
            endpoint=endpoint,
            input_file=file.id,
            window_s=window_s,
            metadata=dict(metadata or {}),
            status=BatchStatus.VALIDATING,
        )
        return await self._book.add(batch)

    async def wait(self, batch_id: str, on_look: Callable[[BatchRecord], None] = lambda _: None) -> BatchRecord:
        """Until it has ended; ``on_look`` sees it meanwhile. Raises UnknownBatch."""
        while True:
            batch = await self._book.get(batch_id)
            on_look(batch)
            if batch.status.terminal:
                return batch
            await asyncio.sleep(LOOK_S)

    async def content(self, file_id: str) -> AsyncGenerator[bytes, None]:
        """One of its files, in pieces. Raises UnknownFile, FilesUnavailable."""
        async for piece in (await self._files()).content(await self._client.files.get(file_id)):
            yield piece

    async def _files(self) -> Files:
        if self._opened is None:
            self._opened = Files(self._client.files, await asyncio.to_thread(store_at, self._location))
        return self._opened


def _endpoint_of(path: Path) -> str:
    with _told(path).open("rb") as file:
        first = file.readline(_BLOCK)
    try:
        return str(json.loads(first)["url"])
    except (ValueError, TypeError, KeyError, RecursionError):
        raise InvalidRequest(
            f'{path}: the first line is no request such as {{"custom_id": "1", "method": "POST", '
            '"url": "/v1/chat/completions", "body": {"model": "cfo", "messages": []}}'
        ) from None


async def _pieces(path: Path) -> AsyncIterator[bytes]:
    file = await asyncio.to_thread(_told(path).open, "rb")
    try:
        while piece := await asyncio.to_thread(file.read, _BLOCK):
            yield piece
    except OSError as error:
        raise FilesUnavailable(f"{path}: {error.strerror}") from None
    finally:
        file.close()


def _told(path: Path) -> Path:
    if not path.is_file():
        raise InvalidRequest(f"{path}: is no file")
    return path
