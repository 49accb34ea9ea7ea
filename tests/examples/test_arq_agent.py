"""Tasks of an arq worker that ask a pool: real processes of arq, a real server, canned answers."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from arq import Retry
from arq.connections import ArqRedis
from arq.jobs import DeserializationError, Job, SerializationError
from redis.asyncio import Redis

from examples import arq_agent
from examples.arq_agent import WorkerSettings, arq_worker, ask, job_of
from lorapool.producer import Client, JobCancelled, RedisUnreachable
from lorapool.producer.testing import CannedPool
from tests.fleet import until

ROOT = Path(__file__).parents[2]
QUESTION = "How long is our runway?"


@pytest.fixture
def pool(redis_url: str) -> Iterator[CannedPool]:
    """Its one adapter takes two seconds to answer."""
    with CannedPool(redis_url, "default") as pool:
        pool.answer("cfo", "Eighteen months.", aliases=["CFO"])
        pool.delay_s = 2.0
        yield pool


@pytest.fixture
def environment(pool: CannedPool) -> Mapping[str, str]:
    return {**os.environ, "LORAPOOL_REDIS_URL": pool.redis_url, "LORAPOOL_POOL": pool.name}


@pytest.fixture
async def arq(redis_url: str, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setenv("LORAPOOL_REDIS_URL", redis_url)
    client = await arq_agent.connect()
    yield client
    await client.aclose()


def test_one_command_shows_it() -> None:
    """A server, a pool and an arq worker come and go; each task's answer is printed."""
    command = [sys.executable, "-m", "examples.arq_agent"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=100)
    assert (0, "") == (done.returncode, done.stderr)
    assert [f"{role}: The {role} has an answer to that." for role in arq_agent.QUESTIONS] == done.stdout.split("\n")[:3]
    assert "3 jobs for 3 tasks" in done.stdout


@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGTERM])
async def test_a_task_whose_worker_ends_is_answered_once(
    end: signal.Signals, arq: ArqRedis, pool: CannedPool, environment: Mapping[str, str], redis: Redis, tmp_path: Path
) -> None:
    """In the middle of its answer. Another arq worker runs the task again, and finds the job: the pool has one."""
    with arq_worker(tmp_path, environment, "first") as first:
        task = await arq.enqueue_job("ask", "CFO", QUESTION)
        await until(lambda: bool(pool.requests))
        first._process.send_signal(end)
        first._process.wait(20)
    await redis.delete(f"arq:in-progress:{task.job_id}")  # as run out: a killed worker's lock outlives job_timeout
    with arq_worker(tmp_path, environment, "second") as second:
        assert "Eighteen months." == await task.result(timeout=40)
        second.check()
    info = await task.result_info()
    assert 2 == info.job_try
    assert [job_of(task.job_id)] == [request.job_id.partition(".")[2] for request in pool.requests]
    async with pool.client() as client:
        assert 1 == (await client.agent_stats("arq"))["submitted"]
        assert 1 == (await client.get(job_of(task.job_id)).result(5)).attempts


async def test_a_job_that_is_cancelled_ends_its_task(
    arq: ArqRedis, pool: CannedPool, environment: Mapping[str, str], tmp_path: Path
) -> None:
    """From another process, by the task's id; arq does not try it again."""
    with arq_worker(tmp_path, environment):
        task = await arq.enqueue_job("ask", "CFO", QUESTION)
        await until(lambda: bool(pool.requests))
        async with pool.client() as client:
            await client.get(job_of(task.job_id)).cancel()
        with pytest.raises(SerializationError, match="JobCancelled"):  # arq's word for an error that came as text
            await task.result(timeout=20)
    assert (1, 1) == ((await task.result_info()).job_try, len(pool.requests))


async def test_an_alias_that_moves_between_two_runs_makes_no_second_job(pool: CannedPool) -> None:
    """The first run's job stands, and its answer."""
    pool.delay_s = 0.0
    async with pool.client(agent="arq") as client:
        ctx = {"pool": client, "job_id": "t1", "job_try": 1}
        assert "Eighteen months." == await ask(ctx, "CFO", QUESTION)
        pool.answer("controller", "Twelve months.", aliases=["CFO"])
        assert "Eighteen months." == await ask(ctx, "CFO", QUESTION)
    assert 1 == len(pool.requests)


async def test_only_a_server_that_is_away_is_tried_again(pool: CannedPool) -> None:
    """Later each time; what became of the job itself is final."""

    class Away(Client):
        async def submit(self, *_: Any, **__: Any) -> Any:
            raise RedisUnreachable("it restarts")

    ctx = {"pool": Away(pool.redis_url), "job_id": "t1", "job_try": 3}
    with pytest.raises(Retry) as retry:
        await ask(ctx, "CFO", QUESTION)
    await ctx["pool"].close()
    assert 3000 == retry.value.defer_score
    async with pool.client() as client:
        asking = asyncio.create_task(ask({"pool": client, "job_id": "t2", "job_try": 1}, "CFO", QUESTION))
        await until(lambda: bool(pool.requests))
        await client.get(job_of("t2")).cancel()
        with pytest.raises(JobCancelled):
            await asking


async def test_a_planted_pickle_is_not_run(arq: ArqRedis, redis: Redis) -> None:
    """Tasks are msgpack, and nothing else is read as one: no code comes out of the queue."""
    await redis.set("arq:job:evil", b"cposix\nsystem\n(S'true'\ntR.")
    with pytest.raises(DeserializationError):
        await Job("evil", arq, _deserializer=WorkerSettings.job_deserializer).info()
