"""Worker and client outlive what can happen to their server, and go on by themselves; real processes, fake runner."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator
from typing import Any

import pytest
from redis.asyncio import Redis

from lorapool.producer.client.client import Client
from lorapool.producer.client.handle import JobHandle
from lorapool.shared.errors import RedisFull
from lorapool.shared.job import Result
from lorapool.shared.server.redis_client import connect
from lorapool.shared.server.settings import redis_settings
from tests.chaos.proxy import FaultProxy
from tests.chaos.server import Fsync, durable_server
from tests.fake_model import expected
from tests.fleet import add_adapters, alive, fake_worker, until

STEP_S, TOKENS = 0.02, 60  # a job takes more than a second
NAMES = ("a", "b", "c")
SHORT_TIMEOUT = {"LORAPOOL_SOCKET_TIMEOUT_S": "3"}


def worker(url: str, name: str = "w1", timeout: dict[str, str] = SHORT_TIMEOUT, **config: Any) -> Any:
    return fake_worker(url, name, {"step_s": STEP_S}, timeout, **config)


async def submit(pool: Client, count: int, tokens: int = TOKENS) -> list[JobHandle]:
    """Every second one streamed."""
    requests = [
        {
            "adapter": [*NAMES, None][n % 4],
            "prompt": f"question {n}",
            "max_new_tokens": tokens,
            "stream": n % 2 == 1,
        }
        for n in range(count)
    ]
    handles = await pool.submit_many(requests)
    assert all(isinstance(handle, JobHandle) for handle in handles), handles
    return [handle for handle in handles if isinstance(handle, JobHandle)]


async def answers(handles: list[JobHandle]) -> list[Result]:
    """Awaited from now on, streamed ones by their stream first; whoever awaits sees no error."""

    async def answer(handle: JobHandle, streamed: bool) -> Result:
        text = "".join([delta.text async for delta in handle.stream()]) if streamed else None
        result = await handle.result()
        assert text in {None, result.text}
        return result

    async with asyncio.timeout(60):
        return await asyncio.gather(*(answer(handle, n % 2 == 1) for n, handle in enumerate(handles)))


def check(results: list[Result], digests: dict[str, str], tokens: int = TOKENS) -> None:
    """The tokens of a calm run."""
    for n, result in enumerate(results):
        assert expected(f"question {n}", digests.get(result.adapter, ""), tokens) == result.token_ids


async def running(redis: Redis, count: int) -> None:
    """So many jobs run, and one has its first token."""
    await until(lambda: _running(redis, count))
    await asyncio.sleep(5 * STEP_S)


async def _running(redis: Redis, count: int) -> bool:
    return int(await redis.zcard("lp:{default/0}:leases")) >= count


async def stale(redis: Redis) -> int:
    found = [
        await redis.hget(f"lp:{{default/0}}:stats:{ref}", "stale") for ref in ("_base", *(f"{n}@1" for n in NAMES))
    ]
    return sum(int(count or 0) for count in found)


@pytest.mark.parametrize(
    ("fsync", "down_s", "lease_s"),
    [("everysec", 0.3, 5.0), ("always", 0.3, 5.0), ("always", 4.0, 1.0)],
    ids=["stopped", "killed", "killed-and-away-for-four-leases"],
)
async def test_a_restart_loses_nothing(fsync: Fsync, down_s: float, lease_s: float) -> None:
    """The server is stopped (killed, where each write is synced) while jobs run and wait, and comes back with its
    append-only file: all succeed in their first attempt, for whoever was awaiting or streaming all the time."""
    with durable_server(fsync) as server:
        await server.start()
        redis = connect(redis_settings(server.url))
        with worker(server.url, lease_s=lease_s) as survivor:
            await alive(redis, "w1")
            digests = await add_adapters(redis, *NAMES)
            async with Client(server.url) as pool:
                awaiting = asyncio.ensure_future(answers(await submit(pool, 16)))
                await running(redis, 8)
                await server.stop()
                await asyncio.sleep(down_s)
                await server.start()
                results = await awaiting
            assert await asyncio.to_thread(survivor.stop) == 0
        assert 0 == await stale(redis)
        await redis.aclose()
    check(results, digests)
    assert {1} == {result.attempts for result in results}


@pytest.fixture
async def proxy(redis_url: str) -> AsyncIterator[FaultProxy]:
    async with FaultProxy(int(redis_url.rpartition(":")[2].partition("/")[0])) as proxy:
        yield proxy


async def test_a_silent_connection_of_the_worker(redis_url: str, redis: Redis, proxy: FaultProxy) -> None:
    """The worker's connections stay open and carry nothing: it gives them up at the socket's timeout, its leases still
    hold (the defaults, four times faster), and it settles all in the first attempt."""
    with worker(proxy.url, timeout={"LORAPOOL_SOCKET_TIMEOUT_S": "2.2"}, lease_s=6) as survivor:
        await alive(redis, "w1")
        digests = await add_adapters(redis, *NAMES)
        async with Client(redis_url) as pool:
            awaiting = asyncio.ensure_future(answers(await submit(pool, 16)))
            await running(redis, 8)
            proxy.fall_silent()
            results = await awaiting
        assert await asyncio.to_thread(survivor.stop) == 0
    check(results, digests)
    assert {1} == {result.attempts for result in results}


async def test_a_silent_connection_of_the_client(
    redis_url: str, redis: Redis, proxy: FaultProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever awaits or streams through a connection that went silent hears of the end all the same, and can submit."""
    monkeypatch.setenv(*next(iter(SHORT_TIMEOUT.items())))
    with worker(redis_url) as survivor:
        await alive(redis, "w1")
        digests = await add_adapters(redis, *NAMES)
        async with Client(proxy.url) as pool:
            awaiting = asyncio.ensure_future(answers(await submit(pool, 8)))
            await running(redis, 8)
            proxy.fall_silent()
            check(await awaiting, digests)
            check(await answers(await submit(pool, 2, tokens=3)), digests, 3)
        assert await asyncio.to_thread(survivor.stop) == 0


async def test_lost_replies(redis_url: str, redis: Redis, proxy: FaultProxy) -> None:
    """Again and again the server acts and the reply is lost, to worker and client: each job runs once, is answered
    once, counted once."""
    with worker(proxy.url) as survivor:
        await alive(redis, "w1")
        digests = await add_adapters(redis, *NAMES)

        async def lose() -> None:
            while True:
                proxy.lose_replies(1)
                await asyncio.sleep(0.2)  # a call is tried four times within half a second

        losing = asyncio.ensure_future(lose())
        async with Client(proxy.url) as pool:
            handles = await submit(pool, 24, tokens=20)
            results = await answers(handles)
            stats = await pool.all_stats()
            losing.cancel()
            await asyncio.wait([losing])
        assert await asyncio.to_thread(survivor.stop) == 0
    check(results, digests, 20)
    assert proxy.lost.total() >= 5
    assert {1} == {result.attempts for result in results}
    names = ("submitted", "claimed", "succeeded", "completion_tokens")
    counted = {name: sum(counters.get(name, 0) for counters in stats.values()) for name in names}
    assert {"submitted": 24, "claimed": 24, "succeeded": 24, "completion_tokens": 24 * 20} == counted


async def test_a_full_server(redis_url: str, redis: Redis) -> None:
    """At maxmemory new work is refused with RedisFull; what was accepted is claimed, by a worker that waited and by
    one that starts only then, and answered; with room again, so is new work."""
    async with Client(redis_url) as pool:
        with worker(redis_url, lease_s=60) as first:  # it sleeps for a while
            await alive(redis, "w1")
            digests = await add_adapters(redis, *NAMES)
            handles = await submit(pool, 20)
            await running(redis, 8)
            await redis.config_set("maxmemory", 1)
            with pytest.raises(RedisFull, match="maxmemory"):
                await pool.submit("a", "one more")
            first.signal(signal.SIGSTOP)  # so that some are left when the second one is there
            with worker(redis_url, "w2", lease_s=60) as second:
                await alive(redis, "w2")
                await until(lambda: redis.hget("lp:{default/0}:held", "w2"))
                first.signal(signal.SIGCONT)
                results = await answers(handles)
                await redis.config_set("maxmemory", 0)
                check(await answers(await submit(pool, 4, tokens=3)), digests, 3)
                assert [0, 0] == [first.stop(), second.stop()]
    check(results, digests)
    assert {"w1", "w2"} == {result.worker for result in results}
    assert {1} == {result.attempts for result in results}
