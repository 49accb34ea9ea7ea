"""Whose turn it is: no lane is passed beyond its bound; crowds have lanes of their own; retries go elsewhere."""

from __future__ import annotations

from dataclasses import dataclass
from random import Random

import pytest

from lorapool.shared.queue.protocol import ClaimedJob, JobLease, Settlement
from lorapool.shared.server.terms import Terms
from tests.shared.conftest import Bench

TERMS = Terms()
PASSED_MS = {"high": 0, "normal": TERMS.normal_passed_ms, "low": TERMS.low_passed_ms}


@dataclass(frozen=True)
class Sent:
    """One job, and for how long later ones may pass it."""

    at_ms: int
    passed_ms: int


@pytest.mark.parametrize("seed", range(6))
async def test_nobody_is_passed_for_longer_than_the_bound(bench: Bench, seed: int) -> None:
    """Whatever agents send in whatever lanes, at whatever load: a job that is given came at most the bound of each job
    that still waits after that one."""
    random = Random(seed)
    await bench.queue.open_adapter("cfo@1", "ab" * 32, agent_window=16)
    waiting: dict[str, Sent] = {}
    mix = random.choices(("high", "normal", "low"), k=3)
    given = 0
    for _ in range(250):
        for _ in range(random.choice((0, 1, 1, 2))):
            priority, agent = random.choice(mix), random.choice("abc")
            if len(await bench.redis.hvals(bench.keys.window("cfo@1"))) and await window(bench, agent) >= 16:
                continue
            job_id = await bench.enqueue(priority=priority, agent=agent)
            record = await bench.queue.get(job_id)
            assert record is not None
            crowded = str(record["lane"]).endswith("_over_quota")
            passed_ms = (TERMS.normal_passed_ms if crowded and priority == "high" else PASSED_MS[priority]) + (
                TERMS.over_quota_ms if crowded else 0
            )
            waiting[job_id] = Sent(bench.now, passed_ms)
        if random.random() < 0.5:
            claimed = await bench.claim(n=random.choice((1, 1, 2, 4)))
            for one in claimed:
                sent = waiting.pop(one.job_id)
                given += 1
                for other in waiting.values():
                    assert sent.at_ms - other.at_ms <= other.passed_ms, (sent, other)
            await bench.queue.settle([Settlement(c.job_id, c.lease, "succeeded") for c in claimed])
        await bench.set_clock(bench.now + random.choice((10, 500, 3_000, 20_000)))
    assert given > 50


async def window(bench: Bench, agent: str) -> int:
    return int(await bench.redis.hget(bench.keys.window("cfo@1"), agent) or 0)


async def test_a_crowd_does_not_wait_behind_a_low_job(bench: Bench) -> None:
    """What an agent sends beyond its share keeps its priority against those of less."""
    await bench.queue.open_adapter("cfo@1", "ab" * 32, agent_window=8)
    await bench.enqueue(id="low", priority="low", agent="other")
    for index in range(6):
        await bench.enqueue(id=f"n{index}", agent="flood")
    assert [f"0.n{index}" for index in range(6)] == [claimed.job_id for claimed in await bench.claim(n=6)]


async def test_a_delay_does_not_evade_the_window(bench: Bench) -> None:
    """Jobs submitted with the least delay wait as those submitted without one, once they are due."""
    await bench.queue.open_adapter("cfo@1", "ab" * 32, agent_window=8)
    for index in range(6):
        await bench.enqueue(id=f"d{index}", agent="flood", delay_ms=1)
    await bench.set_clock(bench.now + 1)
    await bench.queue.tick("w1")
    calm = await bench.enqueue(agent="calm")
    assert calm in {claimed.job_id for claimed in await bench.claim(n=1)}
    assert {"normal_over_quota"} == {(await bench.queue.get(f"d{index}") or {})["lane"] for index in range(6)}


async def test_what_came_back_takes_half_a_batch(bench: Bench) -> None:
    """And one place in turn where only one is free."""
    for index in range(3):
        await bench.enqueue(id=f"old{index}")
    held = [JobLease(c.job_id, c.lease) for c in await bench.claim(n=3)]
    await bench.queue.release(held)
    await bench.set_clock(bench.now + TERMS.normal_passed_ms)
    for index in range(3):
        await bench.enqueue(id=f"new{index}", priority="high")
    assert ["0.old0", "0.new0"] == [claimed.job_id for claimed in await bench.claim(n=2)]
    assert ["0.old1"] == [claimed.job_id for claimed in await bench.claim(n=1)]


async def test_a_retry_is_left_to_another_worker(bench: Bench) -> None:
    """For two seconds, if another is there; what else waits is taken meanwhile."""
    await bench.enqueue(id="mine")
    await bench.queue.tick("w2")
    [failed] = await bench.claim(worker="w1")
    await bench.queue.settle([Settlement("mine", failed.lease, "retry", error="CudaError")])
    await bench.set_clock(int(await bench.redis.zscore(bench.keys.one("delayed"), "mine")))
    await bench.queue.tick("w2")
    await bench.enqueue(id="other")
    assert ["0.other"] == [claimed.job_id for claimed in await bench.claim(worker="w1")]
    assert () == await bench.claim(worker="w1")
    assert ["0.mine"] == [claimed.job_id for claimed in await bench.claim(worker="w2")]


@pytest.mark.parametrize("others", [True, False])
async def test_a_retry_does_not_wait_for_others_for_ever(bench: Bench, others: bool) -> None:
    """The worker where it failed takes it after two seconds, or at once where it is the only one."""
    await bench.enqueue(id="mine")
    [failed] = await bench.claim(worker="w1")
    await bench.queue.settle([Settlement("mine", failed.lease, "retry", error="CudaError")])
    await bench.set_clock(int(await bench.redis.zscore(bench.keys.one("delayed"), "mine")))
    if others:
        await bench.queue.tick("w2")
        assert () == await bench.claim(worker="w1")
        await bench.set_clock(bench.now + TERMS.elsewhere_ms)
    assert ["0.mine"] == [claimed.job_id for claimed in await bench.claim(worker="w1")]


async def test_an_overdue_backlog_holds_up_nobody(bench: Bench) -> None:
    """Behind 2,000 jobs whose deadline has passed a live one is claimed within a few calls, each of which says that
    there is more to do."""
    await bench.queue.open_adapter("cfo@1", "ab" * 32, agent_window=10_000, max_depth=10_000)
    for _ in range(2_000):
        await bench.enqueue(deadline_ms=1_000)
    await bench.set_clock(bench.now + 2_000)
    live = await bench.enqueue()
    calls = 0
    jobs: tuple[ClaimedJob, ...] = ()
    while not jobs:
        calls += 1
        claim = await bench.queue.claim("w1", f"L{calls}", ["cfo@1"], 4, 1, 15_000)
        jobs = claim.jobs
        assert jobs or claim.view.behind
    assert ([live], True) == ([claimed.job_id for claimed in jobs], calls <= 6)
