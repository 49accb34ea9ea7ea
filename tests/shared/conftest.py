"""A queue on the real, empty server of the test, with a clock that the test sets."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
from redis.asyncio import Redis

from lorapool.shared.job import Job
from lorapool.shared.queue.protocol import ClaimedJob, Settlement
from lorapool.shared.server.keys import Keys, new_job_id
from tests.parts import Queue

START_MS = 1_800_000_000_000
LEASE_MS = 15_000


class Bench:
    """A queue, its clock, and short words for what most tests do."""

    def __init__(self, redis: Redis, queue: Queue) -> None:
        self.redis, self.queue, self.keys = redis, queue, queue.keys
        self.now = START_MS
        self._leases = 0

    async def set_clock(self, now: int) -> None:
        self.now = now
        await self.redis.set(self.keys.one("clock"), now)

    async def pass_time(self, ms: int) -> None:
        """Let time pass while some worker comes by every two seconds."""
        end = self.now + ms
        while self.now < end:
            await self.set_clock(min(end, self.now + 2_000))
            await self.queue.tick("watcher")

    async def enqueue(self, ref: str = "cfo@1", **fields: Any) -> str:
        return (await self.queue.enqueue(job(ref=ref, **fields))).job_id

    async def claim(self, *refs: str, worker: str = "w1", n: int = 8, **options: Any) -> tuple[ClaimedJob, ...]:
        self._leases += 1
        lease = f"{worker}.{self._leases}"
        claim = await self.queue.claim(worker, lease, refs or ("cfo@1",), n, 8, LEASE_MS, **options)
        return claim.jobs

    async def state(self, job_id: str) -> str:
        [state] = await self.queue.states([job_id])
        return "" if state is None else state.value


def job(**fields: Any) -> Job:
    return Job.parse(**{"id": new_job_id(), "ref": "cfo@1", "prompt": "How long is our runway?", **fields})


@pytest.fixture
async def bench(redis: Redis) -> AsyncIterator[Bench]:
    keys = Keys("test")
    queue = Queue(redis, keys.pool, clock=keys.one("clock"))
    bench = Bench(redis, queue)
    await bench.set_clock(START_MS)
    for ref in ("ceo@1", "cfo@1"):
        await queue.open_adapter(ref, "ab" * 32)
    yield bench
    await queue.close()


def success(claimed: ClaimedJob, **fields: object) -> Settlement:
    return Settlement(claimed.job_id, claimed.lease, "succeeded", **fields)
