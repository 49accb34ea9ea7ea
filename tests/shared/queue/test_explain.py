from __future__ import annotations

from lorapool.shared.queue.protocol import JobLease, Settlement
from tests.parts import membership_of
from tests.shared.conftest import LEASE_MS, Bench


async def reason(bench: Bench, job_id: str = "mine") -> str:
    return (await bench.queue.explain(job_id)).reason


async def test_nobody_is_there(bench: Bench) -> None:
    """Before any worker came, and after the last one left."""
    await bench.enqueue(id="mine")
    assert await reason(bench) == "no_worker"
    await bench.queue.tick("w1")
    assert await reason(bench) == "next"
    await bench.set_clock(bench.now + 6_000)
    told = await bench.queue.explain("mine")
    assert ("no_worker", "no live worker: the last was seen 6.0 s ago") == (told.reason, told.message)


async def test_how_many_are_ahead(bench: Bench) -> None:
    """Higher priorities and earlier entries of the same adapter count, other adapters do not."""
    for name, priority in (("a", "normal"), ("mine", "normal"), ("b", "high"), ("c", "low")):
        await bench.enqueue(id=name, priority=priority)
    await bench.enqueue("ceo@1")
    await bench.queue.tick("w1")
    told = await bench.queue.explain("mine")
    assert ("behind", "2") == (told.reason, told.facts["ahead"])


async def test_paused_and_full_adapters(bench: Bench) -> None:
    await bench.queue.open_adapter("cfo@1", "", max_inflight=1)
    await bench.enqueue(id="first")
    await bench.enqueue(id="mine")
    await bench.claim()
    assert await reason(bench) == "at_capacity"
    await bench.queue.pause("cfo@1")
    assert await reason(bench) == "paused"


async def test_delayed_and_retried(bench: Bench) -> None:
    await bench.enqueue(id="mine", delay_ms=2_500)
    told = await bench.queue.explain("mine")
    assert ("delayed", "submitted with a delay; due in 2.5 s") == (told.reason, told.message)
    await bench.set_clock(bench.now + 2_500)
    [claimed] = await bench.claim()
    await bench.queue.settle([Settlement("0.mine", claimed.lease, "retry", error="CudaError")])
    assert "tried 1 times (CudaError)" in (await bench.queue.explain("mine")).message


async def test_where_it_runs(bench: Bench) -> None:
    """Running on whom since when; loading while its worker says so; gone when the lease has lapsed."""
    await bench.enqueue(id="mine")
    [claimed] = await bench.claim()
    await bench.set_clock(bench.now + 3_000)
    assert (await bench.queue.explain("mine")).message == "running on worker w1 for 3.0 s, attempt 1"
    await bench.redis.hset("lp:{test}:worker:w1", "loading", "ceo@1 cfo@1")
    assert await reason(bench) == "loading"
    await bench.queue.cancel("mine")
    assert await reason(bench) == "stopping"
    await bench.set_clock(bench.now + LEASE_MS)
    assert await reason(bench) == "worker_gone"
    await bench.queue.renew([JobLease("0.mine", claimed.lease)], LEASE_MS)
    assert await reason(bench) == "stopping"


async def test_a_suspect_says_so(bench: Bench) -> None:
    await bench.enqueue(id="mine")
    await bench.claim()
    await bench.pass_time(LEASE_MS + 1_000)
    assert await reason(bench) == "suspect"


async def test_how_it_ended(bench: Bench) -> None:
    await bench.enqueue(id="mine")
    [claimed] = await bench.claim()
    await bench.set_clock(bench.now + 1_500)
    await bench.queue.settle([Settlement("0.mine", claimed.lease, "failed", error="PromptTooLong", message="9 > 8")])
    told = await bench.queue.explain("mine")
    assert ("failed", "failed 1.5 s after submission: PromptTooLong: 9 > 8") == (told.reason, told.message)


async def test_no_worker_can_reach_its_adapter(bench: Bench) -> None:
    """Each live worker says so: they are named; while one may reach it, the job is merely next."""
    members = membership_of(bench.redis, "test", bench.keys.one("clock"))
    await bench.enqueue(id="mine")
    await bench.queue.tick("w1")
    await members.beat("w1", {"state": "running", "not_here": "ceo@1 cfo@1"}, 60_000, boot="1")
    await members.beat("w2", {"state": "running", "not_here": ""}, 60_000, boot="2")
    assert "next" == await reason(bench)
    await members.beat("w2", {"state": "running", "not_here": "cfo@1"}, 60_000, boot="2")
    told = await bench.queue.explain("mine")
    assert "not_here" == told.reason
    assert "cfo@1" in told.message and "w1, w2" in told.message


async def test_a_worker_that_loads_is_named_where_none_takes_jobs(bench: Bench) -> None:
    """With how far it is; once it runs, the job is next."""
    members = membership_of(bench.redis, "test")
    await bench.enqueue(id="mine")
    await members.join("w1", {"state": "loading", "progress": "weights 40 %"}, 60_000, boot="1")
    told = await bench.queue.explain("mine")
    expected = "no worker takes jobs yet: w1 is loading its model (weights 40 %)"
    assert ("no_worker", expected) == (told.reason, told.message)
