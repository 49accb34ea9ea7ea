"""An arq worker whose tasks ask a pool's adapters, as a client like any other. ``python -m examples.arq_agent``.

That command brings a server, a pool with canned answers and an arq worker, all on this machine, and gives the worker
three tasks. The worker alone, on the server and pool of LORAPOOL_REDIS_URL and LORAPOOL_POOL, is
``arq examples.arq_agent.WorkerSettings``. Read it from ``ask`` downwards.
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import msgpack
from arq import Retry, create_pool
from arq.connections import ArqRedis, RedisSettings

from lorapool.producer import Client, JobConflict, RedisFull, RedisUnreachable
from lorapool.producer.local.process import LocalProcess, scratch_folder
from lorapool.producer.local.server import embedded_server
from lorapool.producer.testing import CannedPool

ANSWER_S = 30.0  # an answer that takes longer is of no use to us
QUESTIONS = {"CEO": "Where do we begin?", "CFO": "How long is our runway?", "CTO": "Why is it slow?"}


async def ask(ctx: dict[str, Any], adapter: str, question: str) -> str:
    """The task: an adapter's answer.

    arq may run a task more than once: again after its worker was killed or stopped. So the job has a name that follows
    from the task's: the second run finds the job of the first, whether it waits, runs or is done, and the adapter
    computes once. What is wrong with the job itself (JobFailed, JobExpired, JobCancelled, …) ends the task; only a
    server that is away is worth another try.
    """
    pool: Client = ctx["pool"]
    job_id = job_of(ctx["job_id"])
    try:
        try:
            job = await pool.submit(adapter, question, job_id=job_id, deadline=ANSWER_S, max_new_tokens=64, wait=True)
        except JobConflict:  # the alias has moved since the first run, whose job stands
            job = pool.get(job_id)
        return (await job.result(ANSWER_S + 5)).text  # more than its deadline: what ends it is said by the pool
    except (RedisUnreachable, RedisFull) as error:
        raise Retry(defer=ctx["job_try"]) from error


def job_of(task_id: str) -> str:
    """The id of the job that a task submits. ``pool.get(job_of(task.job_id)).cancel()`` cancels it, from anywhere."""
    return f"arq-{task_id}"


async def open_pool(ctx: dict[str, Any]) -> None:
    """One client for all tasks of a worker: their jobs leave together, and one inbox hears of all their ends."""
    ctx["pool"] = await Client(agent="arq").__aenter__()


async def close_pool(ctx: dict[str, Any]) -> None:
    """Jobs go on without it."""
    await ctx["pool"].close()


def arq_settings() -> RedisSettings:
    """arq's queue lies beside the pool, on the same server; any other would do."""
    return RedisSettings.from_dsn(os.environ.get("LORAPOOL_REDIS_URL", "redis://localhost:6379"))


class WorkerSettings:
    """What ``arq`` reads. arq pickles tasks unless told otherwise: who may write to its queue could run any code."""

    functions = (ask,)
    on_startup = open_pool
    on_shutdown = close_pool
    redis_settings = arq_settings()
    job_timeout = 2 * ANSWER_S  # beyond the job's own deadline, which ends the job as well
    job_serializer = partial(msgpack.packb, default=repr)
    job_deserializer = msgpack.unpackb


async def connect() -> ArqRedis:
    """A client of arq's queue: its ``enqueue_job("ask", "CFO", "How long is our runway?")`` makes a task."""
    packing = {name: getattr(WorkerSettings, name) for name in ("job_serializer", "job_deserializer")}
    return await create_pool(arq_settings(), **packing)


# -- everything on this machine


def main() -> int:
    """Three tasks, their answers, and how many jobs the pool saw."""
    with scratch_folder() as folder, embedded_server(folder) as url:
        os.environ |= {"LORAPOOL_REDIS_URL": url, "LORAPOOL_POOL": "default"}
        with arq_worker(folder, os.environ), CannedPool(url, "default") as pool:
            for role in QUESTIONS:
                pool.answer(role.lower(), f"The {role} has an answer to that.", aliases=[role])
            asyncio.run(enqueue_all())
            print(f"{len(pool.requests)} jobs for {len(QUESTIONS)} tasks")
    return 0


@contextmanager
def arq_worker(folder: Path, environment: Mapping[str, str], name: str = "arq") -> Iterator[LocalProcess]:
    """The command ``arq examples.arq_agent.WorkerSettings``, started."""
    command = [str(Path(sys.executable).parent / "arq"), "examples.arq_agent.WorkerSettings"]
    worker = LocalProcess(name, command, folder, environment)
    try:
        yield worker
    finally:
        worker.stop()


async def enqueue_all() -> None:
    """Each question as a task; the answers in their order."""
    arq = await connect()
    tasks = [await arq.enqueue_job("ask", role, question) for role, question in QUESTIONS.items()]
    for role, task in zip(QUESTIONS, tasks, strict=True):
        assert task is not None  # it would be None if a task of that id were there
        print(f"{role}: {await task.result(timeout=ANSWER_S)}")
    await arq.aclose()


if __name__ == "__main__":
    sys.exit(main())
