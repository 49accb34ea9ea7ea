"""BatchRun: a held batch, from wherever it is to its end.

Its steps: look the file through, ask line by line and write answers down in parts, join the parts, end it, clear away.
Each can be broken off anywhere and taken up by another holder, for what counts is in the book, and nothing that is in
the book is done again (docs/batches.md goes through the moments).
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass
from functools import partial

from lorapool.producer.batches.answer import Door
from lorapool.producer.batches.asker import Asker
from lorapool.producer.batches.assembly import assembled, clear
from lorapool.producer.batches.lease import Held, LeaseLost, outlasting
from lorapool.producer.batches.line import Fault, Line
from lorapool.producer.batches.pen import Pen
from lorapool.producer.batches.source import Source, survey
from lorapool.producer.batches.store import FileStore, opened
from lorapool.producer.client.client import Client
from lorapool.shared.batches.batch_record import BatchRecord, BatchStatus
from lorapool.shared.errors import FilesUnavailable, UnknownFile
from lorapool.shared.tasks import cancel_and_wait

LOOKED_AT = 64  # lines read at a time
ASKED_BYTES = 16 << 20  # of lines under way
ENDS_ANYWAY_MS = 15 * 60_000  # after a batch should have ended, it does, though its files cannot be had


@dataclass(frozen=True, slots=True)
class Pace:
    """Seconds. ``at_once``: lines under way, of one batch; ``batches``: held by one process at a time."""

    lease_s: float = 15.0
    poll_s: float = 1.0
    part_s: float = 1.0
    keep_s: float = 20.0
    at_once: int = 256
    batches: int = 16


class BatchRun:
    """Of one lease. ``long_work``: few at a time keep a thread for seconds, for others need threads too."""

    def __init__(
        self, client: Client, store: FileStore, door: Door, held: Held, pace: Pace, long_work: asyncio.Semaphore
    ) -> None:
        self._client, self._store, self._held, self._pace = client, store, held, pace
        self._book, self._lease, self._batch = held.book, held.lease, held.batch
        self._asker, self._long_work = Asker(client, door, held), long_work

    async def run(self) -> None:
        """Returns at the batch's end. Raises LeaseLost, FilesUnavailable, RedisAuthFailed."""
        await self._held.renew()
        if not self._batch.status.terminal:
            try:
                await self._to_its_end()
            except FilesUnavailable:
                if self._held.now_ms < _should_end_ms(self._batch) + ENDS_ANYWAY_MS:
                    raise
                await self._fail(Fault("files_unavailable", "its files could not be read or written any more"))
        await self._clear()

    async def _to_its_end(self) -> None:
        total = self._batch.total or await self._look_through()
        if not total:
            return
        if self._batch.completed + self._batch.failed < total:
            await self._answer_all()
        await self._move(BatchStatus.FINALIZING)
        parts = await outlasting(lambda: self._book.parts(self._batch.id))
        async with self._long_work:
            files = await asyncio.to_thread(assembled, self._store, self._lease, parts)
        status = _ending(await outlasting(lambda: self._book.get(self._batch.id)))
        await self._sure(await outlasting(lambda: self._book.finish(self._lease, status, files)))

    async def _look_through(self) -> int:
        """How many lines it has; 0 where it has failed."""
        try:
            file = await outlasting(lambda: self._client.files.get(self._batch.input_file))
        except UnknownFile:
            return await self._fail(Fault("no_input_file", "its file is gone"))
        async with self._long_work:
            found = await asyncio.to_thread(survey, self._store, file.name, self._batch.endpoint)
        if found.faults:
            return await self._fail(*found.faults)
        await self._move(BatchStatus.IN_PROGRESS, found.total)
        return found.total

    async def _fail(self, *faults: Fault) -> int:
        errors = [fault.shown() for fault in faults]
        await self._sure(await outlasting(lambda: self._book.finish(self._lease, BatchStatus.FAILED, errors=errors)))
        return 0

    async def _answer_all(self) -> None:
        """What no part has is asked, and comes into one."""
        noted = len(await outlasting(lambda: self._book.parts(self._batch.id)))
        pen = Pen(self._client, self._store, self._held, noted, part_s=self._pace.part_s, keep_s=self._pace.keep_s)
        writing = asyncio.create_task(pen.run())
        asking = asyncio.create_task(self._ask_all(pen))
        try:
            await asyncio.wait((writing, asking), return_when=asyncio.FIRST_COMPLETED)
            if not writing.done():
                await asking
                pen.end()
            await writing
        finally:
            await cancel_and_wait(asking, writing)

    async def _ask_all(self, pen: Pen) -> None:
        places, room = asyncio.Semaphore(self._pace.at_once), _Bytes(ASKED_BYTES)

        async def one(line: Line) -> None:
            try:
                await pen.add(await self._asker.ask(line))
            finally:
                places.release()
                await room.give_back(line.size)

        async with asyncio.TaskGroup() as group, aclosing(self._left()) as left:
            async for lines in left:
                if self._held.ending.is_set():
                    for answer in await self._asker.look(lines):
                        await pen.add(answer)
                    continue
                for line in lines:
                    await places.acquire()
                    await room.take(line.size)
                    group.create_task(one(line))

    async def _left(self) -> AsyncGenerator[list[Line], None]:
        """The lines that no part has, some at a time."""
        answered = await outlasting(lambda: self._book.answered(self._batch.id))
        file = await outlasting(lambda: self._client.files.get(self._batch.input_file))
        async with opened(self._store, file.name) as reading:
            source = Source(reading, self._batch.endpoint, answered)
            while lines := await asyncio.to_thread(source.take, LOOKED_AT):
                yield lines

    async def _move(self, status: BatchStatus, total: int = 0) -> None:
        if await outlasting(lambda: self._book.move(self._lease, status, total=total)) is None:
            raise LeaseLost

    async def _sure(self, held: bool) -> None:
        if not held:
            raise LeaseLost

    async def _clear(self) -> None:
        """Leave the batch's files and nothing else."""
        batch = await outlasting(lambda: self._book.get(self._batch.id))
        kept = []
        for file_id in (batch.output_file, batch.error_file):
            record = None if file_id is None else await outlasting(partial(self._client.files.look, file_id))
            kept += [] if record is None else [record.name]
        await asyncio.to_thread(clear, self._store, batch.id, kept)
        await outlasting(lambda: self._book.close(self._lease))


class _Bytes:
    """So many at a time; what is larger than all goes alone."""

    def __init__(self, most: int) -> None:
        self._most, self._taken = most, 0
        self._changed = asyncio.Condition()

    async def take(self, size: int) -> None:
        async with self._changed:
            await self._changed.wait_for(lambda: not self._taken or self._taken + size <= self._most)
            self._taken += size

    async def give_back(self, size: int) -> None:
        async with self._changed:
            self._taken -= size
            self._changed.notify_all()


def _ending(batch: BatchRecord) -> BatchStatus:
    """How a batch ends whose lines are all answered."""
    if batch.status is BatchStatus.CANCELLING:
        return BatchStatus.CANCELLED
    return BatchStatus.EXPIRED if batch.ended_early else BatchStatus.COMPLETED


def _should_end_ms(batch: BatchRecord) -> int:
    return batch.expires_ms if batch.cancelling_ms is None else batch.cancelling_ms
