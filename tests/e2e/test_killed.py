"""A worker on the real model is killed in the middle of generating; the others' answers are those of a calm run."""

from __future__ import annotations

import asyncio
import signal
from pathlib import Path
from typing import Any

import pytest
from redis.asyncio import Redis

from examples.voices import UNSEEN
from lorapool.producer.client.client import Client
from lorapool.shared.job import JobState, Result
from lorapool.shared.server.redis_client import connect
from lorapool.shared.server.settings import redis_settings
from tests.e2e.conftest import ADAPTERS, NAMES, RealPool, register_all
from tests.fleet import real_worker, until

FLAGS = ("--slots", "3", "--max-batch", "8", "--lease", "2", "--adapter-root", str(ADAPTERS))
REQUESTS: list[dict[str, Any]] = [
    {
        "adapter": [*NAMES, None][number % 6],
        "messages": [{"role": "user", "content": UNSEEN[number]}],
        "max_new_tokens": 9,
        "stream": True,
    }
    for number in range(8)
]


@pytest.mark.long  # briefly: tests/examples/test_csuite.py, and tests/chaos over a fake model
@pytest.mark.timeout(240)
async def test_killed_while_generating(real_pool: RealPool, redis_url: str, redis: Redis, base_model: Path) -> None:
    """SIGKILL between two tokens: every job succeeds once, with the tokens of a calm run."""
    async with Client(real_pool.url) as calm:
        expected = [_tokens(result) for result in await calm.gather(REQUESTS, timeout=100)]
    with (
        real_worker(redis_url, *FLAGS, name="first", base_model=base_model, threads=1) as first,
        real_worker(redis_url, *FLAGS, name="second", base_model=base_model, threads=1) as second,
    ):
        await register_all(redis_url, "first")
        await register_all(redis_url, "second")
        async with Client(redis_url) as pool:
            handles = await pool.submit_many(REQUESTS)
            killed = await until(lambda: _generating(redis_url, "first"))
            first.signal(signal.SIGKILL)
            results = await pool.gather(handles, timeout=100)
            stats = await pool.all_stats()
        assert second.stop() == 0
    assert expected == [_tokens(result) for result in results]
    assert len(REQUESTS) == sum(counters.get("succeeded", 0) for counters in stats.values())
    assert {"second"} == {result.worker for result in results if isinstance(result, Result) and result.job_id in killed}
    assert 2 == max(result.attempts for result in results if isinstance(result, Result))


def _tokens(result: object) -> tuple[int, ...]:
    assert isinstance(result, Result), result
    return result.token_ids


async def _generating(url: str, worker: str) -> set[str]:
    """Ids of the jobs that this worker runs, once one of them has emitted a token but is not done."""
    redis = connect(redis_settings(url))
    try:
        running, emitted = set(), False
        async for key in redis.scan_iter("lp:{default/0}:job:*", count=1000):
            found = await redis.hmget(key, "state", "worker", "emitted")
            if found[:2] == [JobState.RUNNING.value.encode(), worker.encode()]:
                running.add("0." + key.decode().rpartition(":")[2])
                emitted = emitted or 1 < int(found[2] or 0) < 7
        await asyncio.sleep(0)
        return running if emitted else set()
    finally:
        await redis.aclose()
