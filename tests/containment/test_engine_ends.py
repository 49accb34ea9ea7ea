"""A worker's engine ends or hangs: that costs the jobs that it was busy with an attempt, and nobody else anything."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Sequence

import psutil
import pytest

from lorapool.producer.client.handle import JobHandle
from lorapool.shared.errors import JobFailed
from lorapool.shared.job import Result
from lorapool.shared.server.keys import Keys
from lorapool.worker.engine_process.child import NAME
from tests.containment.conftest import Contain
from tests.containment.pool import ContainedPool
from tests.fake_model import HANGING, POISON, expected
from tests.fleet import WorkerProcess, alive, until

KEYS = Keys("default")
LONG_LEASE_S = 600.0  # what is given back before that was not given back by a lease that lapsed


def engine_of(worker: WorkerProcess) -> int:
    """The process id of its engine."""
    [engine] = [child.pid for child in psutil.Process(worker.process.pid).children() if child.name() == NAME]
    return engine


async def generating(pool: ContainedPool, handles: Sequence[object]) -> str:
    """A worker whose engine has begun with one of these streamed jobs, or nothing."""
    for handle in handles:
        assert isinstance(handle, JobHandle)
        worker, emitted = await pool.redis.hmget(KEYS.job(handle.id), "worker", "emitted")
        if int(emitted or 0):
            return str(worker.decode())
    return ""


async def test_an_engine_that_is_killed(contained: Contain) -> None:
    """By the kernel, for want of memory, say: its worker lives, starts another, and gives all back long before any
    lease lapses; jobs of the step have lost an attempt, the others none."""
    async with contained(workers=3, step_s=0.02, lease_s=LONG_LEASE_S) as pool:
        digest = (await pool.adapters("held"))["held@1"]
        await pool.calm()
        async with pool.bystanders() as bystanders:
            requests = [{"adapter": "held", "prompt": f"q {n}", "max_new_tokens": 60, "stream": True} for n in range(8)]
            handles = await pool.client.submit_many(requests)
            name = await until(lambda: generating(pool, handles))
            os.kill(engine_of(pool.workers[name]), signal.SIGKILL)
            results = await pool.client.gather(handles, timeout=60)
            await bystanders.served(100)
            beat = await alive(pool.redis, name)
        bystanders.judge(factor=2.0)
        for n, result in enumerate(results):
            assert isinstance(result, Result)
            assert expected(f"q {n}", digest, 60) == result.token_ids
        assert "1" == beat["restarts"]
        [lost] = pool.workers[name].events("engine lost")
        assert ("died", True) == (lost["why"], "SIGKILL" in lost["reason"])
        assert 0 < lost["blamed"] <= lost["inside"]


async def test_a_poisonous_job_ends_engines_and_no_worker(contained: Contain) -> None:
    """It is given up after three; its batch mates are answered, and all workers live."""
    async with contained(workers=3, step_s=0.01, lease_s=LONG_LEASE_S) as pool:
        digest = (await pool.adapters("held"))["held@1"]
        await pool.calm()
        async with pool.bystanders() as bystanders:
            mates = [
                await pool.client.submit("held", f"mate {n}", max_new_tokens=30, agent=f"mate-{n}") for n in range(6)
            ]
            poison = await pool.client.submit("held", POISON, max_new_tokens=30)
            results = await asyncio.gather(*(mate.result(60) for mate in mates))
            with pytest.raises(JobFailed) as failed:
                await poison.result(60)
            await bystanders.served(40)
        bystanders.judge(factor=2.0, slack_s=5.0)  # three new engines, on a busy machine
        assert [expected(f"mate {n}", digest, 30) for n in range(6)] == [result.token_ids for result in results]
        assert "Poisonous" == failed.value.error
        assert 3 == sum(len(worker.events("engine lost")) for worker in pool.workers.values())


async def test_a_step_that_hangs(contained: Contain) -> None:
    """Once it has taken longer than the bound its engine is ended: the job that hangs is given up after three, all
    others go on, and what came to that engine meanwhile has lost no attempt; the worker says what ailed it."""
    async with contained(workers=3, step_s=0.01, lease_s=LONG_LEASE_S, step_timeout_s=1.0) as pool:
        await pool.adapters("held")
        await pool.calm()
        async with pool.bystanders() as bystanders:
            hanging = await pool.client.submit("held", HANGING, max_new_tokens=5)
            await until(lambda: pool.redis.hget(KEYS.job(hanging.id), "worker"))
            await asyncio.sleep(0.3)  # until its step has begun
            behind = await pool.client.submit_many(
                [{"adapter": "held", "prompt": f"q {n}", "max_new_tokens": 20, "agent": f"a{n}"} for n in range(40)]
            )
            with pytest.raises(JobFailed) as failed:
                await hanging.result(60)
            results = await pool.client.gather(behind, timeout=60)
            await bystanders.served(40)
        bystanders.judge(factor=2.0, slack_s=4.0)  # who shared a step waits for the bound, and for a new engine
        assert "Poisonous" == failed.value.error
        assert [1] * 40 == [result.attempts for result in results if isinstance(result, Result)]
        told = [line for worker in pool.workers.values() for line in worker.events("engine lost")]
        assert ["hung"] * 3 == [line["why"] for line in told]
        assert all("--step-timeout" in line["reason"] for line in told)


async def test_an_engine_that_is_frozen(contained: Contain) -> None:
    """Stopped from outside for longer than the bound, it counts as hung as well; nothing runs twice to its end."""
    async with contained(workers=3, step_s=0.02, lease_s=LONG_LEASE_S, step_timeout_s=1.0) as pool:
        digest = (await pool.adapters("held"))["held@1"]
        await pool.calm()
        async with pool.bystanders() as bystanders:
            handles = await pool.client.submit_many(
                [{"adapter": "held", "prompt": f"q {n}", "max_new_tokens": 40} for n in range(4)]
            )
            await until(lambda: pool.redis.hget("lp:{default/0}:held", "w1"))
            os.kill(engine_of(pool.workers["w1"]), signal.SIGSTOP)
            results = await pool.client.gather(handles, timeout=60)
            await bystanders.served(60)
        bystanders.judge(factor=2.0, slack_s=4.0)
        for n, result in enumerate(results):
            assert isinstance(result, Result)
            assert expected(f"q {n}", digest, 40) == result.token_ids
