"""Pen: answers of a batch's lines are written down in parts, and each part is noted, so that each line counts once.

A part is two contents of the store, one for good answers and one for errors, whose names nobody else writes; then one
script notes which lines it has. Before that script nothing refers to the part; after it the lines are never asked
again, and their jobs' records are shed. Knows no lines' content.
"""

from __future__ import annotations

import asyncio
import time

from lorapool.producer.batches.answer import Answer
from lorapool.producer.batches.lease import Held, LeaseLost, outlasting
from lorapool.producer.batches.store import FileStore
from lorapool.producer.client.client import Client
from lorapool.shared.batches.batch_book import Part

PART_LINES, PART_BYTES = 500, 4 << 20  # a part is written at once when it has so much
HELD_BACK = 2  # times as much may wait while a part is written
LONGEST_S = 60.0  # a part at least so often
SHARE = 60  # of the time so far: a batch of an hour is noted once a minute
GOOD, BAD = "o", "e"  # in the names of parts


class Pen:
    """Of one batch. ``run`` is its only writer."""

    def __init__(
        self, client: Client, store: FileStore, held: Held, noted: int, *, part_s: float, keep_s: float
    ) -> None:
        """``noted``: how many parts there are already; ``keep_s``: how long jobs' records stay after their part."""
        self._client, self._store, self._held, self._number = client, store, held, noted
        self._part_s, self._keep_s = part_s, keep_s
        self._waiting: list[Answer] = []
        self._bytes = 0
        self._began_at = time.monotonic()
        self._stirred, self._room = asyncio.Event(), asyncio.Condition()
        self._last = False

    async def add(self, answer: Answer) -> None:
        """Waits while too much waits."""
        async with self._room:
            await self._room.wait_for(lambda: not self._is_full(HELD_BACK))
        self._waiting.append(answer)
        self._bytes += len(answer.text)
        if self._is_full():
            self._stirred.set()

    def end(self) -> None:
        """No more will come: ``run`` writes what waits, and returns."""
        self._last = True
        self._stirred.set()

    async def run(self) -> None:
        """Raises LeaseLost, FilesUnavailable, RedisAuthFailed."""
        while not self._last or self._waiting:
            await self._rest()
            if self._waiting:
                await self._write()

    def _is_full(self, times: int = 1) -> bool:
        return len(self._waiting) >= times * PART_LINES or self._bytes >= times * PART_BYTES

    async def _rest(self) -> None:
        longest_s = min(LONGEST_S, max(self._part_s, (time.monotonic() - self._began_at) / SHARE))
        try:
            async with asyncio.timeout(longest_s):
                await self._stirred.wait()
        except TimeoutError:
            return
        self._stirred.clear()
        if self._last:
            self._stirred.set()

    async def _write(self) -> None:
        answers, self._waiting, self._bytes = self._waiting, [], 0
        async with self._room:
            self._room.notify_all()
        part = await asyncio.to_thread(self._stored, answers)
        number = self._number
        if not await outlasting(lambda: self._held.book.commit(self._held.lease, number, part)):
            raise LeaseLost
        self._number += 1
        await outlasting(lambda: self._client.shed([job for each in answers for job in each.jobs], self._keep_s))

    def _stored(self, answers: list[Answer]) -> Part:
        name = f"{self._number:05d}-{self._held.lease.token}"
        kinds = ""
        for kind, ok in ((GOOD, True), (BAD, False)):
            lines = [each.text for each in answers if each.ok is ok]
            if lines:
                kinds += kind
                _store(self._store, f"{folder_of(self._held.batch.id)}/{name}-{kind}", lines)
        return Part(
            f"{name}-{kinds}",
            [each.number for each in answers],
            sum(each.ok for each in answers),
            sum(not each.ok for each in answers),
            sum(each.prompt_tokens for each in answers),
            sum(each.completion_tokens for each in answers),
            any(each.ended_early for each in answers),
        )


def folder_of(batch_id: str) -> str:
    """Where a batch's contents lie."""
    return f"batches/{batch_id}"


def content_of(batch_id: str, part: str, kind: str) -> str | None:
    """The content of a noted part that has answers of that kind; None if it has none."""
    name, _, kinds = part.rpartition("-")
    return f"{folder_of(batch_id)}/{name}-{kind}" if kind in kinds else None


def _store(store: FileStore, name: str, lines: list[bytes]) -> None:
    writing = store.writing(name)
    try:
        writing.write(b"".join(lines))
        writing.close()
    except BaseException:
        writing.abort()
        raise
