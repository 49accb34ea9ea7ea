from __future__ import annotations

import pytest

from lorapool.shared.errors import UnknownAdapter
from lorapool.shared.queue.protocol import JobLease, Settlement
from tests.parts import Queue
from tests.shared.conftest import LEASE_MS, START_MS, Bench, job


async def test_a_claim_hands_over_all_a_worker_needs(bench: Bench) -> None:
    job_id = await bench.enqueue(agent="ada", deadline_ms=60_000, params={"seed": 5})
    await bench.set_clock(START_MS + 10)
    claim = await bench.queue.claim("w1", "L", ["cfo@1"], 8, 8, LEASE_MS)
    [claimed] = claim.jobs
    assert (job_id, "L", "cfo@1", "ab" * 32, "ada") == (
        claimed.job_id, claimed.lease, claimed.ref, claimed.digest, claimed.agent,
    )  # fmt: skip
    assert (1, 0, 1, 5) == (claimed.attempt, claimed.lost, claimed.fence, claimed.seed)
    assert (START_MS, START_MS + 10, START_MS + 60_000) == (
        claimed.submitted_ms,
        claimed.claimed_ms,
        claimed.deadline_ms,
    )
    assert START_MS + 10 + LEASE_MS == claim.view.next_due_ms


async def test_the_same_lease_takes_once(bench: Bench) -> None:
    """A claim whose reply was lost is asked again and returns what it took, and nothing more."""
    for _ in range(4):
        await bench.enqueue()
    first = await bench.queue.claim("w1", "L1", ["cfo@1"], 2, 8, LEASE_MS)
    repeat = await bench.queue.claim("w1", "L1", ["cfo@1"], 2, 8, LEASE_MS)
    assert first.jobs == repeat.jobs
    assert {"cfo@1": 2} == await bench.queue.depths()
    assert (await bench.queue.counters.of_adapter("cfo@1"))["claimed"] == 2


async def test_a_late_repeat_returns_only_what_is_still_held(bench: Bench) -> None:
    for _ in range(2):
        await bench.enqueue()
    first, second = (await bench.queue.claim("w1", "L1", ["cfo@1"], 2, 8, LEASE_MS)).jobs
    await bench.queue.settle([Settlement(first.job_id, "L1", "succeeded")])
    repeat = await bench.queue.claim("w1", "L1", ["cfo@1"], 2, 8, LEASE_MS)
    assert (second,) == repeat.jobs


async def test_preferences_are_taken_in_their_order(bench: Bench) -> None:
    """Adapter by adapter, each a micro-batch, until n; ``per_adapter`` and ``max_adapters`` bound the mix."""
    for ref in ("cfo@1", "ceo@1"):
        for _ in range(5):
            await bench.enqueue(ref)
    assert ["ceo@1"] * 5 + ["cfo@1"] == [c.ref for c in await bench.claim("ceo@1", "cfo@1", n=6)]
    for _ in range(5):
        await bench.enqueue("ceo@1")
    assert ["ceo@1", "ceo@1", "cfo@1", "cfo@1"] == [c.ref for c in await bench.claim("ceo@1", "cfo@1", per_adapter=2)]
    only = await bench.queue.claim("w9", "L9", ["ceo@1", "cfo@1"], 8, 1, LEASE_MS)
    assert {"ceo@1"} == {c.ref for c in only.jobs}


async def test_priorities_are_taken_in_their_order(bench: Bench) -> None:
    for priority in ("low", "normal", "high"):
        await bench.enqueue(id=priority, priority=priority)
    assert ["0.high", "0.normal", "0.low"] == [c.job_id for c in await bench.claim()]


async def test_returned_jobs_go_first_but_not_alone(bench: Bench) -> None:
    """Released jobs lead the next batch, at most half of it while others wait."""
    for i in range(4):
        await bench.enqueue(id=f"old{i}")
    held = [JobLease(c.job_id, c.lease) for c in await bench.claim(n=4)]
    await bench.queue.release(held)
    for i in range(4):
        await bench.enqueue(id=f"new{i}", priority="high")
    assert ["0.old0", "0.old1", "0.new0", "0.new1"] == [c.job_id for c in await bench.claim(n=4)]
    assert ["0.old2", "0.old3", "0.new2", "0.new3"] == [c.job_id for c in await bench.claim(n=8)]


async def test_an_adapters_inflight_is_bounded(bench: Bench) -> None:
    """At max_inflight an adapter is not claimable, and is again when one of its jobs ends."""
    await bench.queue.open_adapter("cfo@1", "ab" * 32, max_inflight=2)
    for _ in range(5):
        await bench.enqueue()
    first, _ = await bench.claim()
    assert (await bench.queue.tick("w1")).ready_count == 0
    assert await bench.claim() == ()
    await bench.queue.settle([Settlement(first.job_id, first.lease, "succeeded")])
    assert (await bench.queue.tick("w1")).ready_count == 1
    assert len(await bench.claim()) == 1


async def test_a_claim_takes_at_most_64(bench: Bench) -> None:
    await bench.queue.open_adapter("cfo@1", "ab" * 32, agent_window=100)
    await bench.queue.enqueue_many([job() for _ in range(70)])
    assert len(await bench.claim(n=1_000)) == 64


async def test_a_paused_adapter_takes_jobs_and_is_not_claimed(bench: Bench) -> None:
    """Not even when it is opened again with other limits; resumed, it wakes a worker."""
    await bench.enqueue()
    await bench.queue.pause("cfo@1")
    await bench.enqueue()
    await bench.queue.open_adapter("cfo@1", "ab" * 32, max_depth=5)
    assert await bench.claim() == ()
    while await bench.queue.wait_for_work("w1", 0.01):
        pass
    await bench.queue.resume("cfo@1")
    assert await bench.queue.wait_for_work("w1", 0.5)
    assert len(await bench.claim()) == 2


async def test_an_adapter_that_is_not_there_cannot_be_paused(bench: Bench) -> None:
    with pytest.raises(UnknownAdapter, match="cto@1"):
        await bench.queue.pause("cto@1")


async def test_the_view_tells_who_waits(bench: Bench) -> None:
    """Depth, since when the next job waits, and tokens served of each claimable adapter."""
    await bench.enqueue("ceo@1")
    await bench.set_clock(START_MS + 100)
    for _ in range(3):
        await bench.enqueue("cfo@1", params={"max_new_tokens": 50})
        await bench.set_clock(bench.now + 50)
    await bench.set_clock(START_MS + 300)
    claim = await bench.queue.claim("w1", "L", ["cfo@1"], 1, 1, LEASE_MS)
    ceo, cfo = sorted(claim.view.waiting, key=lambda item: item.ref)
    assert ("ceo@1", START_MS, 1, 0.0) == (ceo.ref, ceo.since_ms, ceo.depth, ceo.served)
    assert ("cfo@1", START_MS + 150, 2) == (cfo.ref, cfo.since_ms, cfo.depth)
    assert cfo.served == 55.0  # 50 tokens asked for, and a prompt of 22 characters
    assert (2, START_MS + 300) == (claim.view.ready_count, claim.view.now_ms)


async def test_served_tokens_are_corrected_and_kept(bench: Bench) -> None:
    """The charge of a claim becomes the tokens truly used; a newcomer starts at the least of those present."""
    for _ in range(2):
        await bench.enqueue("cfo@1", params={"max_new_tokens": 500})
    [claimed] = await bench.claim(n=1)
    await bench.queue.settle(
        [Settlement(claimed.job_id, claimed.lease, "succeeded", prompt_tokens=20, completion_tokens=10)]
    )
    await bench.enqueue("ceo@1")
    served = {item.ref: item.served for item in (await bench.queue.tick("w1")).waiting}
    assert served == {"cfo@1": 30.0, "ceo@1": 30.0}


async def test_a_weight_makes_tokens_cheaper(bench: Bench) -> None:
    await bench.queue.open_adapter("cfo@1", "ab" * 32, weight=5)
    for _ in range(2):
        await bench.enqueue(params={"max_new_tokens": 45})
    await bench.claim(n=1)
    [waiting] = (await bench.queue.tick("w1")).waiting
    assert waiting.served == 10.0


async def test_a_view_is_bounded(redis) -> None:
    """Of 200 waiting adapters the view names the 32 longest waiting, the 32 least served, and the residents."""
    queue = Queue(redis, "test", clock="lp:{test/0}:clock")
    for i in range(200):
        await redis.set("lp:{test/0}:clock", START_MS + i)
        await queue.open_adapter(f"a{i}@1", "")
        await queue.enqueue(job(ref=f"a{i}@1"))
    for i in range(200):
        await redis.zadd("lp:{test/0}:served", {f"a{i}@1": 200 - i})
    view = await queue.tick("w1", ["a100@1", "a101@1", "gone@1"])
    expected = {*range(32), *range(168, 200), 100, 101}
    assert {f"a{i}@1" for i in expected} == {item.ref for item in view.waiting}
    assert view.ready_count == 200
    await queue.close()


async def test_an_overdue_job_is_not_handed_over(bench: Bench) -> None:
    job_id = await bench.enqueue(deadline_ms=1_000)
    await bench.set_clock(bench.now + 1_000)
    assert await bench.claim() == ()
    assert await bench.state(job_id) == "expired"


async def test_another_worker_is_woken_while_work_remains(bench: Bench) -> None:
    """Who takes a part of the work wakes the next; who leaves none wakes nobody."""
    for _ in range(2):
        await bench.enqueue()
    assert await bench.queue.wait_for_work("w1", 0.05)
    await bench.claim(n=1)
    assert await bench.queue.wait_for_work("w2", 0.05)
    await bench.claim(n=1)
    assert not await bench.queue.wait_for_work("w3", 0.05)


@pytest.mark.parametrize("lost_entry", ["job", "payload"])
async def test_a_vanished_record_blocks_nobody(bench: Bench, lost_entry: str) -> None:
    """An entry whose record was deleted by hand is dropped; the next job is served."""
    await bench.enqueue(id="gone")
    await bench.enqueue(id="here")
    await bench.redis.delete(f"{bench.keys.prefix}{lost_entry}:gone")
    claimed = {c.job_id for c in await bench.claim()}
    assert "0.here" in claimed
    assert {} == await bench.queue.depths()


async def test_what_a_worker_cannot_reach_is_not_shown_to_it(bench: Bench) -> None:
    """Whatever waits for longest is elsewhere: it hides nothing that could run here, and others see it."""
    away = [f"away{number:03}@1" for number in range(60)]
    for ref in (*away, "here@1"):
        await bench.queue.open_adapter(ref, "")
        await bench.enqueue(ref)
        await bench.set_clock(bench.now + 1)
    shown = await bench.queue.tick("w1", [f"-{ref}" for ref in away])
    assert ["here@1"] == [item.ref for item in shown.waiting]
    assert "here@1" not in [item.ref for item in (await bench.queue.tick("w2")).waiting]
    claim = await bench.queue.claim("w1", "l1", ["here@1"], 4, 4, LEASE_MS, residents=[f"-{ref}" for ref in away])
    assert (["here@1"], []) == ([job.ref for job in claim.jobs], [item.ref for item in claim.view.waiting])


@pytest.mark.parametrize("depth", [b"x y", b"3 4", b"", b"\xff\xfe", b"inf", b"-1", b"9" * 400])
async def test_a_count_that_is_none_hides_nobody(bench: Bench, depth: bytes) -> None:
    """Whatever stands for the jobs of one adapter, what the view tells of those after it is read."""
    await bench.enqueue("ceo@1")
    await bench.redis.hset(bench.keys.one("waiting"), "foreign@1", depth)
    await bench.redis.zadd(bench.keys.one("ready"), {"foreign@1": 1})
    view = await bench.queue.tick("w1")
    assert {"foreign@1", "ceo@1"} == {item.ref for item in view.waiting}
    await bench.claim("foreign@1")
    assert {b"ceo@1"} == set(await bench.redis.zrange(bench.keys.one("ready"), 0, -1))


@pytest.mark.parametrize("since", ["inf", "-inf", "1e308", "9e15"])
async def test_a_wait_since_no_time_hides_nobody(bench: Bench, since: str) -> None:
    """Of an adapter whose jobs are sound: it counts from now."""
    job_id = await bench.enqueue("ceo@1")
    await bench.redis.zadd(bench.keys.one("ready"), {"ceo@1": since})
    assert [("ceo@1", bench.now)] == [(item.ref, item.since_ms) for item in (await bench.queue.tick("w1")).waiting]
    assert [job_id] == [claimed.job_id for claimed in await bench.claim("ceo@1")]
