"""PoolUpkeep: what an operator does to a pool: pause and resume, limits, dead letters, purging, check and repair.

``client.upkeep``. Takes names as ``submit`` does and goes through the pages that the partition's OperatorQueue hands
out. Builds no Redis command.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable

from lorapool.shared.errors import InvalidRequest
from lorapool.shared.job import check_name
from lorapool.shared.queue.operator import MAX_PAGE, POOL, OperatorQueue
from lorapool.shared.queue.protocol import DeadLetter, DeadPage, Enqueued, Finding, Limits
from lorapool.shared.server.keys import split_id


class PoolUpkeep:
    """An operator's side of a pool. Names are refs, aliases or ids; ``_base`` is the base model."""

    def __init__(self, queue: OperatorQueue, ref_of: Callable[[str], Awaitable[str]]) -> None:
        self._queue, self._ref_of = queue, ref_of

    async def pause(self, adapter: str) -> str:
        """Have no more of its jobs claimed; it still takes them. Returns the exact ref. Raises UnknownAdapter."""
        ref = await self._ref_of(adapter)
        await self._queue.pause(ref)
        return ref

    async def resume(self, adapter: str) -> str:
        """Have its jobs claimed again. Returns the exact ref. Raises UnknownAdapter."""
        ref = await self._ref_of(adapter)
        await self._queue.resume(ref)
        return ref

    async def limits(self, adapter: str | None, **changes: float | None) -> Limits:
        """The limits of an adapter, or of the whole pool (None), after ``changes``.

        Names: max_depth, max_inflight, agent_window, weight; the pool has max_depth alone. None is the default again.
        Raises InvalidRequest, UnknownAdapter.
        """
        return await self._queue.limits(POOL if adapter is None else await self._ref_of(adapter), **changes)

    async def dead(self, adapter: str | None = None, *, n: int | None = None) -> list[DeadLetter]:
        """Dead letters, newest first: the latest ``n`` or all, of one adapter or of all."""
        letters: list[DeadLetter] = []
        async for letter in self._dead(adapter, n):
            letters.append(letter)
            if len(letters) == n:
                break
        return letters

    async def dead_page(self, adapter: str | None = None, cursor: str = "", n: int = 50) -> DeadPage:
        """Up to ``n`` dead letters, newest first, and where to go on: for a page of them."""
        return await self._queue.dead(None if adapter is None else await self._ref_of(adapter), cursor, n)

    async def redrive(self, job_id: str) -> Enqueued:
        """Submit a dead letter's request again, as a new job; a repeat finds that job.

        Raises UnknownJob, InvalidRequest (not a dead letter), ResultExpired (its request is gone), QueueFull,
        AdapterClosed, UnknownAdapter.
        """
        check_name("job id", split_id(job_id)[1])
        return await self._queue.redrive(job_id)

    async def purge_dead(self, adapter: str | None = None, *, older_than: float = 0.0) -> int:
        """Drop the dead letters of one adapter or of all that died ``older_than`` seconds ago; returns how many."""
        if not 0 <= older_than < float("inf"):
            raise InvalidRequest(f"older_than = {older_than!r}: expected seconds, 0 or more")
        ref = None if adapter is None else await self._ref_of(adapter)
        count, cursor = 0, ""
        while True:
            purged = await self._queue.purge_dead(ref, older_than_ms=round(older_than * 1000), cursor=cursor)
            count, cursor = count + purged.count, purged.cursor
            if not cursor:
                return count

    async def purge_waiting(self, adapter: str) -> int:
        """Cancel all jobs that wait for an adapter; returns how many. Running ones go on."""
        ref = await self._ref_of(adapter)
        count, cursor = 0, ""
        while True:
            purged = await self._queue.purge_waiting(ref, cursor)
            count, cursor = count + purged.count, purged.cursor
            if not cursor:
                return count

    async def fsck(self) -> list[Finding]:
        """Check the whole pool and repair what is damaged; harmless while clients and workers are at it."""
        findings: list[Finding] = []
        cursor = ""
        while True:
            step = await self._queue.fsck(cursor)
            findings += step.findings
            cursor = step.cursor
            if not cursor:
                return findings

    async def _dead(self, adapter: str | None, n: int | None) -> AsyncIterator[DeadLetter]:
        ref = None if adapter is None else await self._ref_of(adapter)
        cursor = ""
        while True:
            page = await self._queue.dead(ref, cursor, MAX_PAGE if n is None else n)
            for letter in page.letters:
                yield letter
            cursor = page.cursor
            if not cursor:
                return
