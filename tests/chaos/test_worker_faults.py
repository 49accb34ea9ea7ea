"""Workers that are killed, frozen and told to stop while jobs run; fake runner below real worker processes."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from typing import Any

import pytest
from redis.asyncio import Redis

from lorapool.producer.client.client import Client
from lorapool.producer.client.handle import JobHandle
from lorapool.shared.errors import JobFailed
from lorapool.shared.job import Result
from lorapool.shared.queue.protocol import Finding
from tests.chaos.crew import engine_of
from tests.fake_model import DEADLY, expected
from tests.fleet import WorkerProcess, add_adapters, alive, fake_worker, until
from tests.parts import Queue

LEASE_S = 1.0
STEP_S = 0.01
TOKENS = 25
NAMES = ("a", "b", "c", "d", "e")


@pytest.fixture
async def pool(redis_url: str) -> AsyncIterator[Client]:
    async with Client(redis_url) as pool:
        yield pool


def worker(redis_url: str, name: str, **config: Any) -> Any:
    return fake_worker(redis_url, name, {"step_s": STEP_S}, lease_s=LEASE_S, **({"slots": len(NAMES)} | config))


async def submit(pool: Client, count: int, tokens: int = TOKENS, **fields: Any) -> list[JobHandle]:
    """Jobs over all adapters and the base model."""
    wanted = [*NAMES, None]
    requests = [
        {"adapter": wanted[n % len(wanted)], "prompt": f"question {n}", "max_new_tokens": tokens, **fields}
        for n in range(count)
    ]
    handles = await pool.submit_many(requests)
    assert all(isinstance(handle, JobHandle) for handle in handles)
    return [handle for handle in handles if isinstance(handle, JobHandle)]


async def right_answers(
    pool: Client, handles: list[JobHandle], digests: dict[str, str], tokens: int = TOKENS
) -> list[Result]:
    """The results, each checked against what a calm run gives; and each job succeeded once in the counters."""
    results = [await handle.result(60) for handle in handles]
    for n, result in enumerate(results):
        assert expected(f"question {n}", digests.get(result.adapter, ""), tokens) == result.token_ids
    stats = await pool.all_stats()
    assert len(handles) == sum(counters.get("succeeded", 0) for counters in stats.values())
    return results


async def running_on(redis: Redis, name: str, at_least: int = 1) -> None:
    """Wait until that many jobs are held by the worker and one of them has its first token."""

    async def busy() -> bool:
        held = await redis.hget("lp:{default/0}:held", name)
        return int(held or 0) >= at_least

    await until(busy)
    await asyncio.sleep(10 * STEP_S)


async def stale_count(redis: Redis) -> int:
    queue = Queue(redis, "default")
    stats = [await queue.counters.of_adapter(ref) for ref in ("_base", *(f"{name}@1" for name in NAMES))]
    await queue.close()
    return sum(int(counters.get("stale", 0)) for counters in stats)


async def test_killed_and_replaced(redis_url: str, redis: Redis, pool: Client) -> None:
    """One worker is killed in the middle of generating, the other told to stop, a third started: all jobs succeed
    once, with the tokens of a calm run."""
    with worker(redis_url, "w1", slots=3) as first, worker(redis_url, "w2", slots=3) as second:
        await alive(redis, "w1")
        await alive(redis, "w2")
        digests = await add_adapters(redis, *NAMES)
        handles = await submit(pool, 40)
        await running_on(redis, "w1", 4)
        await running_on(redis, "w2", 4)
        first.signal(signal.SIGKILL)
        with worker(redis_url, "w3") as third:
            second.signal(signal.SIGTERM)  # before it has done all
            await alive(redis, "w3")
            results = await right_answers(pool, handles, digests)
            assert second.wait() == 0
            assert third.stop() == 0
    assert {"w2", "w3"} <= {result.worker for result in results}
    assert 2 in {result.attempts for result in results}, "no job was running on the killed worker"


async def test_frozen_past_its_lease(redis_url: str, redis: Redis, pool: Client) -> None:
    """A worker frozen past its lease writes nothing when it wakes, is counted as stale, and works on."""
    with worker(redis_url, "w1") as frozen:
        await alive(redis, "w1")
        digests = await add_adapters(redis, *NAMES)
        handles = await submit(pool, 12, stream=True)
        await running_on(redis, "w1", 8)
        frozen.signal(signal.SIGSTOP)
        with worker(redis_url, "w2") as other:
            results = await right_answers(pool, handles, digests)
            before = {handle.id: await handle.record() for handle in handles}
            streams = {handle.id: await redis.xlen(f"lp:{{default/0}}:tokens:{handle.id[2:]}") for handle in handles}
            assert other.stop() == 0
        assert await stale_count(redis) == 0
        frozen.signal(signal.SIGCONT)
        await until(lambda: stale_count(redis))
        again = await submit(pool, 6, tokens=5)
        assert {"w1"} == {(await handle.result(30)).worker for handle in again}
        assert before == {handle.id: await pool.get(handle.id).record() for handle in handles}
        assert streams == {
            handle.id: await redis.xlen(f"lp:{{default/0}}:tokens:{handle.id[2:]}") for handle in handles
        }
        assert frozen.stop() == 0
    assert "w2" in {result.worker for result in results}


async def test_drain(redis_url: str, redis: Redis, pool: Client) -> None:
    """SIGTERM: what runs is finished, what waits is given back with its attempt unburnt, exit 0."""
    with worker(redis_url, "w1", max_batch=4, claim_ahead=4) as leaving:
        await alive(redis, "w1")
        digests = await add_adapters(redis, *NAMES)
        handles = await submit(pool, 12)
        await running_on(redis, "w1", 8)
        assert leaving.stop() == 0
        done = [handle for handle in handles if (await handle.record())["state"] == "succeeded"]
        queued = [handle for handle in handles if (await handle.record())["state"] == "queued"]
        assert len(handles) == len(done) + len(queued)
        assert 4 == len(done)
        with worker(redis_url, "w2") as successor:
            results = await right_answers(pool, handles, digests)
            assert successor.stop() == 0
    assert {1} == {result.attempts for result in results}
    assert await redis.hgetall("lp:{default/0}:running") == {}


async def test_second_sigterm_forces(redis_url: str, redis: Redis, pool: Client) -> None:
    """A second SIGTERM gives back what still runs and exits at once, with a status that tells."""
    with worker(redis_url, "w1", grace_s=60) as leaving:
        await alive(redis, "w1")
        digests = await add_adapters(redis, *NAMES)
        handles = await submit(pool, 6, tokens=400)
        await running_on(redis, "w1", 6)
        leaving.signal(signal.SIGTERM)
        await until(lambda: leaving.events("stopping"))
        assert leaving.stop() == 1
        with worker(redis_url, "w2", max_batch=8) as successor:
            results = await right_answers(pool, handles, digests, 400)
            assert successor.stop() == 0
    assert {1} == {result.attempts for result in results}


async def test_stopped_while_its_engine_starts(redis_url: str, redis: Redis, pool: Client) -> None:
    """SIGTERM while the engine is brought up again: nobody waits for that."""
    with fake_worker(redis_url, "w1", {"step_s": STEP_S, "load_s": 2.0}, lease_s=LEASE_S) as leaving:
        await alive(redis, "w1")
        engine = engine_of(leaving)
        assert engine is not None
        os.kill(engine, signal.SIGKILL)
        await until(lambda: engine_of(leaving) not in {engine, None})
        assert leaving.stop(15) == 0


async def test_grace_runs_out(redis_url: str, redis: Redis, pool: Client) -> None:
    """What does not finish within the grace time is given back, and the exit status is 0."""
    with worker(redis_url, "w1", grace_s=0.2) as leaving:
        await alive(redis, "w1")
        await add_adapters(redis, *NAMES)
        handles = await submit(pool, 6, tokens=2000)
        await running_on(redis, "w1", 6)
        assert leaving.stop() == 0
    assert {"queued"} == {(await handle.record())["state"] for handle in handles}


async def test_cut_connections(redis_url: str, redis: Redis, pool: Client) -> None:
    """Every connection is cut again and again while jobs run: all succeed, in one attempt."""
    with worker(redis_url, "w1") as survivor:
        await alive(redis, "w1")
        digests = await add_adapters(redis, *NAMES)
        handles = await submit(pool, 24, stream=True)
        for _ in range(10):
            await redis.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
            await asyncio.sleep(0.05)
        results = await right_answers(pool, handles, digests)
        assert survivor.stop() == 0
    assert {1} == {result.attempts for result in results}


async def test_poison(redis_url: str, redis: Redis, pool: Client) -> None:
    """A job that kills its worker fails for good after three; none of its batch mates does: they are lost
    once beside it, once more in its half, and then run alone."""
    digests = await add_adapters(redis, *NAMES)
    handles = await submit(pool, 12)
    poison = await pool.submit("a", DEADLY)

    async def killed(index: int) -> WorkerProcess | None:
        with worker(redis_url, f"w{index}") as victim:
            await until(lambda: victim.process.poll() is not None)
            return victim

    for index in range(3):
        await killed(index)
    with worker(redis_url, "w9") as healer:
        results = await right_answers(pool, handles, digests)
        with pytest.raises(JobFailed, match="vanished 3 times"):
            await poison.result(30)
        assert healer.stop() == 0
    assert max(result.attempts for result in results) <= 3


async def test_outage_longer_than_a_lease(redis_url: str, redis: Redis, pool: Client) -> None:
    """The server is silent for three leases while jobs run: the worker goes on, nobody's job is reaped, all succeed
    in their first attempt."""
    with worker(redis_url, "w1") as survivor:
        await alive(redis, "w1")
        digests = await add_adapters(redis, *NAMES)
        handles = await submit(pool, 18)
        await running_on(redis, "w1", 6)
        await redis.execute_command("CLIENT", "PAUSE", round(3000 * LEASE_S), "ALL")
        results = await right_answers(pool, handles, digests)
        assert survivor.stop() == 0
    assert {1} == {result.attempts for result in results}
    assert await stale_count(redis) == 0


async def test_fsck_is_harmless_on_a_live_system(redis_url: str, redis: Redis, pool: Client) -> None:
    """Check after check while workers run jobs and one of them gives back what it has: nothing is found, so nothing
    is repaired, and every answer is right. (test_chaos.py checks under fire.)"""
    upkeep = Queue(redis, "default")
    found: list[Finding] = []
    checks: list[int] = []

    async def check() -> None:
        while True:
            step = await upkeep.fsck()
            while step.cursor:
                found.extend(step.findings)
                step = await upkeep.fsck(step.cursor)
            checks.append(len(found))
            await asyncio.sleep(0.01)

    with worker(redis_url, "w1") as first, worker(redis_url, "w2") as second:
        await alive(redis, "w1")
        await alive(redis, "w2")
        digests = await add_adapters(redis, *NAMES)
        checking = asyncio.ensure_future(check())
        handles = await submit(pool, 40, stream=True)
        await running_on(redis, "w1", 4)
        assert first.stop() == 0
        await right_answers(pool, handles, digests)
        checking.cancel()
        await asyncio.wait([checking])
        assert second.stop() == 0
    assert [] == found
    assert len(checks) > 5
