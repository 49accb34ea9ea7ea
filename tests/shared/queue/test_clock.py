"""The server's clock jumps an hour forward and back: nothing waits for the hour to pass again."""

from __future__ import annotations

import pytest

from lorapool.shared.queue.protocol import JobLease, Settlement
from tests.shared.conftest import LEASE_MS, START_MS, Bench

HOUR_MS = 3_600_000


async def jump(bench: Bench, by_ms: int = HOUR_MS) -> None:
    """Forward by an hour, and a few seconds there."""
    await bench.set_clock(bench.now + by_ms)
    await bench.queue.tick("watcher")
    await bench.pass_time(4_000)


async def back(bench: Bench, by_ms: int = HOUR_MS) -> None:
    await bench.set_clock(bench.now - by_ms)
    await bench.queue.tick("watcher")


@pytest.mark.parametrize("by_ms", [HOUR_MS, HOUR_MS // 2])
async def test_reaping_goes_on(bench: Bench, by_ms: int) -> None:
    """Jobs that were claimed before and during the jump are reaped a lease after it, if their workers are gone."""
    await bench.enqueue(id="before")
    await bench.claim(worker="gone")
    await jump(bench, by_ms)
    await bench.enqueue(id="during")
    await bench.claim(worker="gone too")
    await back(bench, by_ms)
    await bench.pass_time(2 * LEASE_MS + 2_000)
    assert {"suspect"} == {(await bench.queue.get(name) or {})["lane"] for name in ("before", "during")}


async def test_nobody_is_reaped_for_the_jump(bench: Bench) -> None:
    """Whoever renews keeps what it holds, forward and back."""
    await bench.enqueue(id="mine")
    [claimed] = await bench.claim()
    for move in (jump, back):
        await move(bench)
        held = [JobLease(claimed.job_id, claimed.lease)]
        assert () == (await bench.queue.renew(held, LEASE_MS)).lost
    assert "running" == await bench.state("mine")


async def test_waits_count_from_now(bench: Bench) -> None:
    """A delay, a deadline and a retry that were set during the jump come when they would have without it."""
    await jump(bench)
    await bench.enqueue(id="delayed", delay_ms=10_000)
    await bench.enqueue(id="timed", deadline_ms=10_000)
    await bench.enqueue("ceo@1", id="retried")
    [claimed] = await bench.claim("ceo@1")
    await bench.queue.settle([Settlement("retried", claimed.lease, "retry", error="CudaError")])
    await back(bench)
    await bench.pass_time(12_000)
    assert {"delayed": "queued", "timed": "expired", "retried": "queued"} == {
        name: await bench.state(name) for name in ("delayed", "timed", "retried")
    }


async def test_what_came_then_is_claimable_now(bench: Bench) -> None:
    """The view tells no adapter whose turn comes in an hour; and its jobs are not passed for an hour."""
    await jump(bench)
    await bench.enqueue(id="then", priority="high")
    await back(bench)
    [waiting] = (await bench.queue.tick("w1")).waiting
    assert waiting.since_ms <= bench.now < START_MS + HOUR_MS
    await bench.set_clock(bench.now + 1_000)
    await bench.enqueue(id="now")
    assert ["0.then", "0.now"] == [claimed.job_id for claimed in await bench.claim()]


async def test_an_outage_is_as_long_as_a_lease_in_use(bench: Bench) -> None:
    """Also where somebody came by before the first claim: leases of a second are not given the longest there may be."""
    await bench.queue.tick("watcher")
    await bench.enqueue(id="mine")
    await bench.queue.claim("gone", "gone.1", ("cfo@1",), 1, 1, 1_000)
    await jump(bench)
    await bench.pass_time(2_000)
    assert "suspect" == (await bench.queue.get("mine") or {})["lane"]


async def test_what_was_lost_then_is_not_passed_for_an_hour(bench: Bench) -> None:
    """Suspects of that hour run before those of now, in the order in which they were lost."""
    held: dict[str, JobLease] = {}
    for name in ("first", "second", "now"):
        await bench.enqueue(id=name)
        [claimed] = await bench.claim(worker=f"gone-{name}")
        held[name] = JobLease(claimed.job_id, claimed.lease)
    for name, later_ms in (("first", HOUR_MS), ("second", 100), ("now", 100)):
        if name == "now":
            await back(bench)
        await bench.set_clock(bench.now + later_ms)
        await bench.queue.lose([held[name]])
        await bench.queue.tick("watcher")
    await bench.set_clock(bench.now + 2_000)
    ran: list[str] = []
    for _ in range(3):
        [claimed] = await bench.claim(worker="w9", n=1)
        ran.append(claimed.job_id)
        await bench.queue.settle([Settlement(claimed.job_id, claimed.lease, "succeeded")])
    assert ["0.first", "0.second", "0.now"] == ran
