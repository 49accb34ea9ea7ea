"""Jobs longer than any timer: what a killed worker held starts again, and a worker that was only slow kills no job."""

from __future__ import annotations

import asyncio
import signal
import time
from functools import partial

from lorapool.producer.client.handle import JobHandle
from lorapool.shared.server.keys import Keys
from tests.containment import LONG
from tests.containment.conftest import Contain
from tests.containment.pool import LEASE_S, ContainedPool
from tests.fleet import until
from tests.machine import Meanwhile

KEYS = Keys("default")
STEP_S = 0.02


async def submit(pool: ContainedPool, count: int, tokens: int) -> list[JobHandle]:
    """So many jobs, the first of which takes longest: no two end at the same time."""
    requests = [
        {"adapter": "held", "prompt": f"long {n}", "max_new_tokens": tokens - n * tokens // 20 % (tokens // 3)}
        for n in range(count)
    ]
    return [handle for handle in await pool.client.submit_many(requests) if isinstance(handle, JobHandle)]


async def runs(pool: ContainedPool, handle: JobHandle) -> str:
    """The worker that runs it, or nothing."""
    state, worker = await pool.redis.hmget(KEYS.job(handle.id), "state", "worker")
    return worker.decode() if state == b"running" else ""


async def test_a_lost_job_starts_again_when_the_longest_has_ended(contained: Contain) -> None:
    """Every row of every worker runs a job that takes longer than leases and places last, and more such jobs wait; one
    worker is killed. What it held starts again at the latest when the longest running job has ended, and a lease later:
    no worker has to fall idle for that."""
    tokens = 1_000 if LONG else 400
    longest_s = tokens * STEP_S
    async with contained(workers=3, step_s=STEP_S, max_batch=2, claim_ahead=0) as pool:
        await pool.adapters("held")
        handles = await submit(pool, 6, tokens)
        await until(lambda: _all_run(pool, handles))
        behind = await submit(pool, 36, tokens)
        held = [handle for handle in handles if await runs(pool, handle) == "w1"]
        pool.workers["w1"].signal(signal.SIGKILL)
        killed_s, meanwhile = time.monotonic(), Meanwhile()
        await pool.left(pool.workers["w1"], -9)
        assert held
        await until(lambda: _all_run(pool, held, without="w1"), longest_s + 120)
        took_s = time.monotonic() - killed_s
        print(f"jobs of {longest_s:g} s, leases of {LEASE_S:g} s: started again after {took_s:.1f} s")
        assert took_s < (longest_s + LEASE_S + 5.0) * meanwhile.slowdown()  # a tick, a pause, and a busy machine
        await asyncio.gather(*(handle.cancel() for handle in behind))
        results = await asyncio.gather(*(handle.result(60) for handle in handles))
        assert max(result.attempts for result in results) == 2


async def _all_run(pool: ContainedPool, handles: list[JobHandle], without: str = "") -> bool:
    return all([await runs(pool, handle) not in {"", without} for handle in handles])


async def test_a_slow_worker_is_no_loss(contained: Contain) -> None:
    """A job whose workers stand still past their leases four times, and come back each time, is not dead."""
    async with contained(workers=2, step_s=STEP_S) as pool:
        await pool.adapters("held")
        [handle] = await submit(pool, 1, 300)
        for _ in range(4):
            name = await until(lambda: runs(pool, handle))
            pool.workers[name].signal(signal.SIGSTOP)
            await until(partial(_left, pool, handle, name))
            pool.workers[name].signal(signal.SIGCONT)
            await until(lambda: _lifted(pool, handle))
        result = await handle.result(60)
        lost, lifted = await pool.redis.hmget(KEYS.job(handle.id), "lost", "lifted")
        assert (4, 4) == (int(lost), int(lifted))
        assert result.attempts == 5


async def _left(pool: ContainedPool, handle: JobHandle, name: str) -> bool:
    return await runs(pool, handle) != name


async def _lifted(pool: ContainedPool, handle: JobHandle) -> bool:
    lost, lifted = await pool.redis.hmget(KEYS.job(handle.id), "lost", "lifted")
    return bool(lost == lifted)
