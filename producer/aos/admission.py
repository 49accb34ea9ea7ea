"""Admission: how many requests of one facade are under way, and the end of them when it stops.

What exceeds the limit waits its turn in order. Lives on the facade's own event loop. Knows no adapters and no pool.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from lorapool.producer.aos.errors import NotRunning
from lorapool.producer.client.handle import JobHandle

LAST_WORDS_S = 5.0  # after a cancel, until its end is heard of


class Admission:
    """``limit`` requests at a time."""

    def __init__(self, limit: int) -> None:
        self._room = asyncio.Semaphore(limit)
        self._inside: set[asyncio.Task[object]] = set()
        self._handles: set[JobHandle] = set()
        self._closed = False

    @property
    def in_flight(self) -> int:
        """Those inside and those that wait to be."""
        return len(self._inside)

    @asynccontextmanager
    async def place(self) -> AsyncIterator[None]:
        """Wait for a place and hold it. Raises NotRunning once closed, also to those who wait."""
        task = asyncio.current_task()
        assert task is not None
        self._check()
        self._inside.add(task)
        try:
            async with self._room:
                self._check()
                yield
        finally:
            self._inside.discard(task)

    @asynccontextmanager
    async def holding(self, handle: JobHandle) -> AsyncIterator[None]:
        """Have that job cancelled if it outlasts the closing."""
        self._handles.add(handle)
        try:
            yield
        finally:
            self._handles.discard(handle)

    async def close(self, timeout_s: float) -> int:
        """Let in nobody more, wait for those inside, cancel their jobs after ``timeout_s``; how many were cancelled."""
        self._closed = True
        if not await self._empty(timeout_s):
            left = list(self._handles)
            await asyncio.gather(*(handle.cancel() for handle in left), return_exceptions=True)
            await self._empty(LAST_WORDS_S)
            return len(left)
        return 0

    async def _empty(self, timeout_s: float) -> bool:
        if self._inside:
            await asyncio.wait(self._inside, timeout=timeout_s)
        return not self._inside

    def _check(self) -> None:
        if self._closed:
            raise NotRunning("the LoRAx server is stopping and takes no new requests")
