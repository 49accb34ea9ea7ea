"""A worker is killed: what it held runs elsewhere after a lease, and nobody else waits for that."""

from __future__ import annotations

import asyncio
import signal
import time

from lorapool.producer.client.handle import JobHandle
from lorapool.shared.errors import LorapoolError
from tests.containment import LONG
from tests.containment.conftest import Contain
from tests.containment.pool import ContainedPool
from tests.fake_model import expected
from tests.fleet import until
from tests.machine import Meanwhile

TOKENS = 12


async def held(pool: ContainedPool, worker: str, count: int) -> list[JobHandle | LorapoolError]:
    """Jobs, some of which that worker holds."""
    handles = await pool.client.submit_many(
        [{"adapter": "held", "prompt": f"question {n}", "max_new_tokens": TOKENS} for n in range(count)]
    )
    await until(lambda: pool.redis.hget("lp:{default/0}:held", worker))
    return handles


async def test_killed_with_short_jobs(contained: Contain) -> None:
    """A worker of three that is killed with jobs of a quarter of a second: each is lost at most once, and succeeds."""
    kills = 6 if LONG else 1
    async with contained(workers=3, step_s=0.02) as pool:
        digest = (await pool.adapters("held"))["held@1"]
        await pool.calm()
        async with pool.bystanders() as bystanders:
            for _ in range(kills):
                handles = await held(pool, "w1", 6)
                pool.workers["w1"].signal(signal.SIGKILL)
                await pool.left(pool.workers["w1"], -9)
                results = [await handle.result(120) for handle in handles]
                assert [expected(f"question {n}", digest, TOKENS) for n in range(6)] == [r.token_ids for r in results]
                assert max(result.attempts for result in results) <= 2
                await bystanders.served(60)
                pool.start("w1")
                await pool.ready("w1")
        bystanders.judge(factor=2.0)


async def test_killed_with_many_long_jobs(contained: Contain) -> None:
    """One of three is killed with 64 jobs of 2 s: another runs them again in two rounds, within four times what one
    worker needs for them all; one stays for the bystanders, for whom nothing changes."""
    slack_s = 0.0 if LONG else 4.0
    async with contained(workers=3, step_s=0.02, max_batch=64) as pool:
        await pool.adapters("held")
        await pool.calm()
        needs_s = await time_of(await all_on_the_first(pool, 64, tokens=100))
        handles = await all_on_the_first(pool, 64, tokens=100)
        async with pool.bystanders() as bystanders:
            meanwhile = Meanwhile()
            pool.workers["w1"].signal(signal.SIGKILL)
            took_s = await time_of(handles, attempts=2)
            await pool.left(pool.workers["w1"], -9)
            await bystanders.served(40)
        bystanders.judge(factor=1.5)
        print(f"64 jobs that one worker runs in {needs_s:.1f} s had all ended {took_s:.1f} s after it was killed")
        assert took_s < (4 * needs_s + slack_s) * meanwhile.slowdown()


async def time_of(handles: list[JobHandle], attempts: int = 1) -> float:
    """Until all have ended, each after so many attempts."""
    began_s = time.monotonic()
    results = await asyncio.gather(*(handle.result(60) for handle in handles))
    assert {attempts} == {result.attempts for result in results}
    return time.monotonic() - began_s


async def all_on_the_first(pool: ContainedPool, count: int, tokens: int) -> list[JobHandle]:
    """So many jobs, all of them held by w1: the others sleep meanwhile."""
    others = [worker for name, worker in pool.workers.items() if name != "w1"]
    for worker in others:
        worker.signal(signal.SIGSTOP)
    requests = [{"adapter": "held", "prompt": f"long {n}", "max_new_tokens": tokens} for n in range(count)]
    handles = [handle for handle in await pool.client.submit_many(requests) if isinstance(handle, JobHandle)]
    await until(lambda: _holds(pool, "w1", count))
    for worker in others:
        worker.signal(signal.SIGCONT)
    return handles


async def _holds(pool: ContainedPool, worker: str, count: int) -> bool:
    return bool(await pool.redis.hget("lp:{default/0}:held", worker) == str(count).encode())
