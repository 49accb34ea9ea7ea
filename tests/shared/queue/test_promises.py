"""Small promises of the queue, one a test: backoff, wake-ups, weights, room, priorities."""

from __future__ import annotations

import asyncio
import random
from typing import Any

import pytest
from redis.asyncio import Redis

from lorapool.shared.errors import QueueFull
from lorapool.shared.queue.protocol import Settlement
from lorapool.shared.server.terms import Terms
from lorapool.worker.loop.affinity import Holding, Homes, Policy, choose
from tests.parts import Queue
from tests.shared.conftest import LEASE_MS, START_MS, Bench, job


async def waits_of(redis: Redis, jitter: float, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The pauses before each retry of a job that fails ten times."""
    monkeypatch.setattr(random, "random", lambda: jitter)
    queue = Queue(redis, "test", clock="lp:{test/0}:clock", terms=Terms(max_attempts=10))
    now, waits = START_MS, []
    await redis.set("lp:{test/0}:clock", now)
    await queue.enqueue(job(id="mine", ref="_base"))
    for attempt in range(10):
        [claimed] = (await queue.claim("w1", f"l{attempt}", ["_base"], 1, 1, LEASE_MS)).jobs
        await queue.settle([Settlement("mine", claimed.lease, "retry", error="CudaError")])
        due = await redis.zscore("lp:{test/0}:delayed", "mine")
        if due is not None:
            waits.append(int(due) - now)
            now = int(due)
            await redis.set("lp:{test/0}:clock", now)
    await queue.close()
    return waits


@pytest.mark.parametrize(("jitter", "share"), [(0.0, 0.5), (0.5, 1.0), (0.999, 1.499)])
async def test_pauses_double_up_to_a_minute_and_are_jittered(redis, monkeypatch, jitter: float, share: float):
    """One second, two, four … at most sixty, each between half and one and a half times that; then it is dead."""
    expected = [1000, 2000, 4000, 8000, 16_000, 32_000, 60_000, 60_000, 60_000]
    assert [int(wait * share) for wait in expected] == await waits_of(redis, jitter, monkeypatch)


async def test_jobs_that_fail_together_do_not_come_back_together(bench: Bench):
    """Twenty retries of one batch are due at many moments."""
    for _ in range(20):
        await bench.enqueue()
    claimed = await bench.claim(n=20)
    await bench.queue.settle([Settlement(c.job_id, c.lease, "retry", error="CudaError") for c in claimed])
    due = {score for _, score in await bench.redis.zrange(bench.keys.one("delayed"), 0, -1, withscores=True)}
    assert len(due) > 10


async def test_a_wake_up_that_is_not_answered_is_open_to_all(bench: Bench):
    """The adapter's last worker says that it idles and sleeps on: 20 ms later anybody is woken for the next job."""
    await bench.enqueue()
    await bench.claim(worker="frozen")
    while await bench.queue.wait_for_work("drain", 0.01):
        pass
    await bench.redis.set(bench.keys.one("idle:frozen"), 1)
    await bench.enqueue()
    await bench.set_clock(bench.now + 19)
    await bench.enqueue()
    assert not await bench.queue.wait_for_work("other", 0.02)
    await bench.set_clock(bench.now + 1)
    await bench.enqueue()
    assert await bench.queue.wait_for_work("other", 1)


async def test_a_busy_last_worker_is_not_waited_for(bench: Bench):
    """Who does not idle gets no marker of its own: whoever idles is woken."""
    await bench.enqueue()
    await bench.claim(worker="busy")
    while await bench.queue.wait_for_work("drain", 0.01):
        pass
    waiting = asyncio.create_task(bench.queue.wait_for_work("other", 5))
    await asyncio.sleep(0.05)
    await bench.enqueue()
    assert await asyncio.wait_for(waiting, 2)


async def test_weights_share_the_tokens(bench: Bench):
    """Two adapters with backlog, one of weight 3: by the policy, it is served three times the tokens."""
    await bench.queue.open_adapter("cfo@1", "ab" * 32, weight=3, agent_window=500)
    await bench.queue.open_adapter("ceo@1", "ab" * 32, agent_window=500)
    for ref in ("cfo@1", "ceo@1"):
        await bench.queue.enqueue_many([job(ref=ref, params={"max_new_tokens": 50}) for _ in range(150)])
    residents, served = ("ceo@1", "cfo@1"), {"cfo@1": 0, "ceo@1": 0}
    holding, policy, homes = Holding(slots=2, resident=frozenset(residents)), Policy(), Homes(["w1"])
    for _ in range(120):
        view = await bench.queue.tick("w1", residents)
        [first, *_] = choose(view, holding, 4, policy, "w1", homes).preferences
        [claimed] = await bench.claim(first, n=1)
        tokens = {"prompt_tokens": 5, "completion_tokens": 50}
        await bench.queue.settle([Settlement(claimed.job_id, claimed.lease, "succeeded", **tokens)])
        served[claimed.ref] += 1
    assert served["cfo@1"] in range(88, 93)


async def test_a_worker_without_work_of_its_own_takes_that_of_others(bench: Bench):
    """An adapter whose home is another worker is not left waiting for it."""
    homes = Homes(["w1", "w2"])
    ref = next(f"a{n}@1" for n in range(99) if homes.home(f"a{n}@1") == "w2")
    await bench.queue.open_adapter(ref, "ab" * 32)
    job_id = await bench.enqueue(ref)
    await bench.set_clock(bench.now + 2_000)  # its home had its chance, and the starvation clock is far from done
    choice = choose(await bench.queue.tick("w1"), Holding(slots=1), 4, Policy(), "w1", homes)
    assert [job_id] == [claimed.job_id for claimed in await bench.claim(*choice.preferences)]


@pytest.mark.parametrize("scope", ["adapter", "agent", "pool"])
async def test_a_full_queue_says_when_to_come_again(bench: Bench, scope: str):
    """About as long as the next job has waited, from a tenth of a second to five."""
    await fill(bench, scope)
    for ago_ms, expected_s in ((0, 0.1), (1_700, 1.7), (60_000, 5.0)):
        await bench.redis.zadd(bench.keys.one("ready"), {"cfo@1": bench.now - ago_ms})
        with pytest.raises(QueueFull, match=f"try again in {expected_s:g} s") as full:
            await bench.enqueue()
        assert (scope, 2, 2, expected_s) == (
            full.value.scope, full.value.depth, full.value.limit, full.value.retry_after_s
        )  # fmt: skip


async def fill(bench: Bench, scope: str) -> None:
    limits: dict[str, dict[str, Any]] = {"adapter": {"max_depth": 2}, "agent": {"agent_window": 2}, "pool": {}}
    await bench.queue.open_adapter("cfo@1", "ab" * 32, **limits[scope])
    if scope == "pool":
        await Queue(bench.redis, bench.keys.pool, bench.keys.one("clock")).limits(max_depth=2)
    for _ in range(2):
        await bench.enqueue()


async def test_a_delayed_job_keeps_its_priority(bench: Bench):
    """Due, it waits in its own line; a retried one goes before them all."""
    await bench.enqueue(id="late-low", priority="low", delay_ms=1_000)
    await bench.enqueue(id="late-high", priority="high", delay_ms=1_000)
    await bench.enqueue(id="now")
    await bench.set_clock(bench.now + 1_000)
    first = await bench.claim(n=1)
    assert ["0.late-high"] == [claimed.job_id for claimed in first]
    await bench.queue.settle([Settlement("late-high", first[0].lease, "retry", error="CudaError")])
    await bench.set_clock(bench.now + 1_500)
    assert ["0.late-high", "0.now", "0.late-low"] == [claimed.job_id for claimed in await bench.claim()]


async def test_what_another_release_may_serve_is_a_dead_letter_at_once(bench: Bench):
    """Outcome dead: no retry, its request kept, the reason in the letter; a repeat is told the same."""
    await bench.enqueue(id="mine")
    [claimed] = await bench.claim()
    settlement = Settlement("mine", claimed.lease, "dead", error="UnsupportedVersion", message="version 2")
    for _ in range(2):
        [settled] = await bench.queue.settle([settlement])
        assert ("settled", "failed") == (settled.outcome, settled.state)
    [letter] = (await Queue(bench.redis, bench.keys.pool).dead()).letters
    assert ("0.mine", "UnsupportedVersion", "version 2", 1) == (
        letter.job_id, letter.reason, letter.message, letter.attempts
    )  # fmt: skip
    assert await bench.redis.exists(bench.keys.payload("mine"))
    stats = await bench.queue.counters.of_adapter("cfo@1")
    assert (1, 1, 0) == (stats["dead"], stats["failed"], stats.get("retried", 0))


@pytest.mark.parametrize(("adapters", "most"), [(1, 10), (16, 16)])
async def test_what_a_job_costs_the_server(bench: Bench, adapters: int, most: int):
    """Commands a job, claim and settlement together: few where one adapter has them all, bounded where each has one."""
    refs = [f"a{number}@1" for number in range(adapters)]
    for ref in refs:
        await bench.queue.open_adapter(ref, "ab" * 32)
        await bench.queue.enqueue_many([job(ref=ref) for _ in range(64 // adapters)])
    await bench.redis.config_resetstat()
    jobs = (await bench.queue.claim("w1", "w1.1", refs, 32, adapters, 15_000, per_adapter=32 // adapters)).jobs
    await bench.queue.settle([Settlement(claimed.job_id, claimed.lease, "succeeded") for claimed in jobs])
    stats = await bench.redis.info("commandstats")
    calls = sum(stat["calls"] for name, stat in stats.items() if name not in {"cmdstat_config", "cmdstat_info"})
    print(f"{adapters} adapters: {calls / 32:.1f} commands a job")
    assert len(jobs) == 32
    assert calls <= 32 * most
