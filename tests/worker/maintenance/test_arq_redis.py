"""arq's client as we make it: its keys below the pool's, its records msgpack and nothing that runs code."""

from __future__ import annotations

import os
import pickle  # noqa: TID251 - to plant one
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgpack
import pytest
from arq.connections import ArqRedis
from arq.worker import Worker, func
from redis.asyncio import Redis

from lorapool.shared.server.settings import redis_settings
from lorapool.worker.maintenance.arq_redis import MAX_TASK_BYTES, arq_redis, pack, unpack

PREFIX = "lp:{board}:"


class Bomb:
    """Unpickling it leaves a file behind."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.path),)


@pytest.fixture
async def arq(redis_url: str) -> AsyncIterator[ArqRedis]:
    client = arq_redis(redis_settings(redis_url, "board"))
    yield client
    await client.aclose()


def worker(arq: ArqRedis, *functions: Any) -> Worker:
    return Worker(
        functions, redis_pool=arq, queue_name=arq.default_queue_name, burst=True, handle_signals=False,
        poll_delay=0.01, keep_result=60, job_serializer=pack, job_deserializer=unpack,
    )  # fmt: skip


async def test_every_key_is_the_pools(arq: ArqRedis, redis: Redis):
    """Before, during and after a task, with its result: all keys begin with the pool's prefix."""
    during: list[bytes] = []

    async def task(_ctx: dict[str, Any]) -> int:
        during.extend(await redis.keys("*"))
        return 7

    job = await arq.enqueue_job("task", _job_id="t1")
    before = await redis.keys("*")
    await worker(arq, func(task, name="task")).async_run()
    assert 7 == await job.result(timeout=5)
    keys = {key.decode() for key in (*before, *during, *await redis.keys("*"))}
    assert {f"{PREFIX}maintenance", f"{PREFIX}arq:job:t1", f"{PREFIX}arq:in-progress:t1"} <= keys
    assert [] == [key for key in keys if not key.startswith(PREFIX)]


async def test_records_are_msgpack(arq: ArqRedis, redis: Redis):
    """What lies in Redis can be read by anyone, and is no pickle."""
    await arq.enqueue_job("task", _job_id="t1")
    record = msgpack.unpackb(await redis.get(f"{PREFIX}arq:job:t1"))
    assert ("task", []) == (record["f"], record["a"])


async def test_a_planted_pickle_is_not_run(arq: ArqRedis, redis: Redis, tmp_path: Path):
    """Who may write to Redis cannot have code run by the maintenance worker; the next task is done."""
    done: list[str] = []

    async def task(ctx: dict[str, Any]) -> None:
        done.append(ctx["job_id"])

    await redis.set(
        f"{PREFIX}arq:job:evil", pickle.dumps({"t": 1, "f": "task", "a": (Bomb(tmp_path / "x"),), "k": {}, "et": 1})
    )
    await redis.zadd(f"{PREFIX}maintenance", {"evil": 1})
    await arq.enqueue_job("task", _job_id="good")
    await worker(arq, func(task, name="task")).async_run()
    assert (["good"], []) == (done, os.listdir(tmp_path))  # noqa: PTH208 - a moment, in a test
    assert 0 == await redis.zcard(f"{PREFIX}maintenance")


@pytest.mark.parametrize("packed", [b"", b"\x93\x01", b"\x01", b"\xc1", b"x" * (MAX_TASK_BYTES + 1), pickle.dumps({})])
def test_what_is_no_record_is_refused(packed: bytes):
    with pytest.raises(ValueError, match=r".*"):
        unpack(packed)


def test_an_error_is_kept_as_text():
    assert {"r": "ValueError('x')"} == unpack(pack({"r": ValueError("x")}))
