"""What waiting costs, counted by a real server with the real worker behind it."""

from __future__ import annotations

import asyncio
import signal

from redis.asyncio import Redis

from lorapool.producer.client.client import Client
from lorapool.producer.client.handle import JobHandle
from lorapool.shared.server.redis_client import connect
from lorapool.shared.server.settings import redis_settings
from tests.e2e.conftest import RealPool

JOBS, OBSERVED_S = 500, 5.0


async def test_500_awaited_jobs_cost_under_a_command_a_second(real_pool: RealPool, pool: Client) -> None:
    """Counted while the worker is frozen, so that the client is the only one to be counted; then all are answered."""
    redis = connect(redis_settings(real_pool.url))
    real_pool.worker.signal(signal.SIGSTOP)
    try:
        asked = [{"adapter": "ceo", "prompt": "x", "max_new_tokens": 1, "agent": f"a{n // 50}"} for n in range(JOBS)]
        jobs = [job for job in await pool.submit_many(asked) if isinstance(job, JobHandle)]
        waiting = [asyncio.ensure_future(job.result()) for job in jobs]
        await asyncio.sleep(0.5)
        calls = await _calls_within(redis, OBSERVED_S)
    finally:
        real_pool.worker.signal(signal.SIGCONT)
        await redis.aclose()
    print(f"{calls / OBSERVED_S:.2f} commands a second for {JOBS} awaited jobs")
    assert len(jobs) == JOBS
    assert calls < OBSERVED_S
    async with asyncio.timeout(100):
        results = await asyncio.gather(*waiting)
    assert [job.id for job in jobs] == [result.job_id for result in results]


async def _calls_within(redis: Redis, seconds: float) -> int:
    """Commands the server ran, this question itself left out."""
    await redis.config_resetstat()
    await asyncio.sleep(seconds)
    stats = await redis.info("commandstats")
    return sum(stat["calls"] for name, stat in stats.items() if not name.startswith(("cmdstat_config", "cmdstat_info")))
