"""A server that is there and refuses for a while costs its jobs that while, and no process its life."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import pytest
from redis.asyncio import Redis
from redis.exceptions import ResponseError

from lorapool.producer.client.client import Client
from lorapool.shared.errors import RedisUnreachable
from tests.conftest import running_server
from tests.fake_model import expected
from tests.fleet import WorkerProcess, add_adapters, alive, fake_worker, until
from tests.worker.maintenance.test_maintenance import maintenance, ticks

REFUSED_S = 2.0
Act = Callable[[Redis], Awaitable[object]]


async def too_few_replicas(admin: Redis) -> None:
    await admin.config_set("min-replicas-to-write", 1)


async def enough_replicas(admin: Redis) -> None:
    await admin.config_set("min-replicas-to-write", 0)


async def full_disk(admin: Redis) -> None:
    folder = (await admin.config_get("dir"))["dir"]
    await asyncio.to_thread(Path(folder, "dump.rdb", "in the way").mkdir, parents=True, exist_ok=True)
    await admin.config_set("save", "3600 1000000")
    await admin.bgsave()

    async def failed() -> bool:
        return bool((await admin.info("persistence"))["rdb_last_bgsave_status"] == "err")

    await until(failed)


async def free_disk(admin: Redis) -> None:
    await admin.config_set("stop-writes-on-bgsave-error", "no")


async def busy(admin: Redis) -> None:
    await admin.config_set("busy-reply-threshold", 1)
    looping = asyncio.create_task(_loop(admin))
    await asyncio.sleep(0.2)
    assert not looping.done()


async def idle(admin: Redis) -> None:
    await admin.script_kill()


async def _loop(admin: Redis) -> None:
    with suppress(ResponseError):
        await admin.eval("while true do end", 0)


@contextmanager
def fleet(url: str) -> Iterator[list[WorkerProcess]]:
    with ExitStack() as stack:
        workers = [stack.enter_context(fake_worker(url, name, {"step_s": 0.02})) for name in ("w1", "w2")]
        yield [*workers, stack.enter_context(maintenance(url))]


@pytest.mark.parametrize(
    ("code", "refuse", "relent"),
    [
        ("NOREPLICAS", too_few_replicas, enough_replicas),
        ("MISCONF", full_disk, free_disk),
        ("BUSY", busy, idle),
    ],
)
async def test_a_refusal_is_outlived(code: str, refuse: Act, relent: Act) -> None:
    """Workers and maintenance live on, a client hears the reason, and every job is answered rightly, once."""
    with running_server("--maxmemory-policy", "noeviction") as url, fleet(url) as processes:
        admin = Redis.from_url(url)
        async with Client(url) as pool:
            digests = await add_adapters(pool._parts.connection._redis, "a")
            await asyncio.gather(*(alive(pool._parts.connection._redis, name) for name in ("w1", "w2")))
            await until(lambda: ticks(processes[2]))
            jobs = [await pool.submit("a", f"job {n}", max_new_tokens=40) for n in range(24)]
            await refuse(admin)
            with pytest.raises(RedisUnreachable, match=code):
                await pool.submit("a", "not now")
            await asyncio.sleep(REFUSED_S)
            await relent(admin)
            results = await asyncio.gather(*(job.result(30) for job in jobs))
            assert [expected(f"job {n}", digests["a@1"], 40) for n in range(24)] == [r.token_ids for r in results]
            before = len(ticks(processes[2]))
            await until(lambda: len(ticks(processes[2])) > before)
            assert (await pool.submit("a", "again", max_new_tokens=2)).created
        assert [None] * 3 == [process.process.poll() for process in processes]
        told = [line["error"] for process in processes for line in process.events("redis did not answer, trying again")]
        assert any(code in error for error in told)
        assert [0, 0, 0] == [process.stop() for process in processes]
        await admin.aclose()
