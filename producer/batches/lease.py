"""Held: a batch under this process's lease, renewed in time; and what the renewals tell: its end, and the clock.

Whoever finds the lease lost stops; nothing that it would still write is taken. Through an outage of Redis the lease is
kept as long as nobody took it.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

from lorapool.producer.batches.answer import CANCELLED, EXPIRED
from lorapool.shared.backoff import backoff
from lorapool.shared.batches.batch_book import BatchBook, Lease
from lorapool.shared.batches.batch_record import BatchRecord, BatchStatus
from lorapool.shared.errors import RedisAuthFailed, RedisFull, RedisUnreachable

RENEWALS = 5  # within a lease
T = TypeVar("T")


class LeaseLost(Exception):
    """Another feeder has the batch, or nobody."""


class Held:
    """``ending`` is set once its lines are to be given up; ``why`` says which way."""

    def __init__(self, book: BatchBook, lease: Lease, batch: BatchRecord, lease_s: float) -> None:
        self.book, self.lease, self.batch = book, lease, batch
        self.ending = asyncio.Event()
        self.why = ""
        self._lease_s = lease_s
        self._renewed_at, self._now_ms = time.monotonic(), batch.created_ms

    @property
    def now_ms(self) -> float:
        """The server's clock, as of the last renewal and what has passed since."""
        return self._now_ms + (time.monotonic() - self._renewed_at) * 1000

    @property
    def sure(self) -> bool:
        """Whether the lease lasts: a process that was frozen may have lost it, and starts nothing before it knows."""
        return time.monotonic() - self._renewed_at < self._lease_s

    async def keep(self) -> None:
        """Renew, for ever. Raises LeaseLost, RedisAuthFailed."""
        while True:
            await self.renew()
            await asyncio.sleep(self._lease_s / RENEWALS)

    async def renew(self) -> None:
        """Once. Raises LeaseLost, RedisAuthFailed."""
        asked_at = time.monotonic()
        answer = await outlasting(lambda: self.book.renew(self.lease, round(self._lease_s * 1000)))
        if answer is None:
            raise LeaseLost
        status, self._now_ms = answer
        self._renewed_at = asked_at
        if status is BatchStatus.CANCELLING:
            self._end(CANCELLED)
        elif self._now_ms >= self.batch.expires_ms:
            self._end(EXPIRED)

    def _end(self, why: str) -> None:
        self.why = self.why or why
        self.ending.set()

    async def pause(self, seconds: float) -> None:
        """That long, or until its lines are to be given up."""
        try:
            async with asyncio.timeout(seconds):
                await self.ending.wait()
        except TimeoutError:
            return


async def outlasting(ask: Callable[[], Awaitable[T]]) -> T:
    """The answer of what may be repeated; a Redis server that is away, or full, is waited for."""
    pauses = backoff()
    while True:
        try:
            return await ask()
        except RedisAuthFailed:
            raise
        except (RedisUnreachable, RedisFull):
            await asyncio.sleep(next(pauses))
