"""LeaseKeeper: renews what this worker holds, and lets go of what it no longer may run.

Each third of a lease it says which jobs it still runs; the server names those it has lost (dropped unwritten), those
that were cancelled and those past their deadline. Between renewals it watches deadlines. Knows nothing of batches.
"""

from __future__ import annotations

import asyncio

from lorapool.shared.queue.worker import WorkerQueue
from lorapool.shared.server.redis_retry import retry_until_repaired
from lorapool.worker.loop.clock import ServerClock
from lorapool.worker.loop.held_jobs import HeldJob, HeldJobs
from lorapool.worker.loop.settler import Settler

DEADLINE_CHECK_S = 0.2


class LeaseKeeper:
    """Runs until cancelled."""

    def __init__(
        self, queue: WorkerQueue, jobs: HeldJobs, settler: Settler, clock: ServerClock, *, lease_ms: int
    ) -> None:
        self._queue, self._jobs, self._settler, self._clock = queue, jobs, settler, clock
        self._lease_ms = lease_ms

    async def run(self) -> None:
        """Renew and watch."""
        loop = asyncio.get_running_loop()
        every_s = self._lease_ms / 3000
        renewed_at = loop.time()
        while True:
            await asyncio.sleep(min(DEADLINE_CHECK_S, every_s))
            await self.expire_overdue()
            if loop.time() - renewed_at >= every_s:
                renewed_at = loop.time()
                await self.renew()

    async def renew(self) -> None:
        """One renewal of everything held."""
        held = self._jobs.leases()
        if not held:
            return
        renewed = await retry_until_repaired(lambda: self._queue.renew(held, self._lease_ms), "renew")
        self._settler.drop_lost(renewed.lost)
        for job_id in renewed.cancelled:
            if (job := self._jobs.get(job_id)) is not None:
                await self._settler.cancel(job)
        for job_id in renewed.overdue:  # told by the server's clock, which ours may be behind
            if (job := self._jobs.get(job_id)) is not None:
                await self._expire(job)

    async def expire_overdue(self) -> None:
        """Settle running jobs whose deadline has passed."""
        for job in self._jobs.overdue(self._clock.now_ms()):
            await self._expire(job)

    async def _expire(self, job: HeldJob) -> None:
        await self._settler.close(job, "expired", message="its deadline passed while it ran")
