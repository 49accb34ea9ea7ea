"""What becomes of jobs whose worker or engine vanished with them: suspects, groups, poison."""

from __future__ import annotations

from lorapool.shared.queue.protocol import JobLease, Settlement
from tests.shared.conftest import LEASE_MS, Bench, success


async def test_a_lost_job_is_given_to_another(bench: Bench) -> None:
    """A lapsed lease is reaped: the attempt counts, and the loss apart from it."""
    await bench.enqueue(id="mine")
    await bench.claim(worker="dies")
    await bench.pass_time(LEASE_MS)
    [again] = await bench.claim(worker="w2")
    assert (2, 1, 2) == (again.attempt, again.lost, again.fence)


async def test_a_worker_says_what_its_engine_died_with(bench: Bench) -> None:
    """The loss counts at once and once, whoever repeats it; the other jobs, released, are unburnt."""
    for name in ("blamed", "spared"):
        await bench.enqueue(id=name)
    blamed, spared = await bench.claim()
    for _ in range(2):
        await bench.queue.lose([JobLease("0.blamed", blamed.lease)])
    await bench.queue.release([JobLease("0.spared", spared.lease)])
    records = {name: await bench.queue.get(name) for name in ("blamed", "spared")}
    assert {"blamed": ("queued", "1", "suspect"), "spared": ("queued", "0", "retry")} == {
        name: (record["state"], record["lost"], record["lane"]) for name, record in records.items()
    }
    assert (await bench.queue.counters.of_adapter("cfo@1"))["reaped"] == 1


async def test_what_kills_three_engines_is_dead(bench: Bench) -> None:
    await bench.enqueue(id="mine")
    for _ in range(3):
        [claimed] = await bench.claim(worker="w1")
        await bench.queue.lose([JobLease("0.mine", claimed.lease)])
    record = await bench.queue.get("mine")
    assert ("failed", "Poisonous", "3") == (record["state"], record["error"], record["lost"])


async def test_a_renewed_lease_is_not_reaped(bench: Bench) -> None:
    await bench.enqueue(id="mine")
    [claimed] = await bench.claim()
    for _ in range(6):
        await bench.pass_time(5_000)
        renewed = await bench.queue.renew([JobLease("0.mine", claimed.lease)], LEASE_MS)
        assert ((), ()) == (renewed.lost, renewed.cancelled)
    assert await bench.state("mine") == "running"


async def test_poison_dies_alone(bench: Bench) -> None:
    """A job that takes its worker down dies after three losses; its batch mates are served, each losing one attempt."""
    ids = ["good1", "poison", "good2"]
    for name in ids:
        await bench.enqueue(id=name)
    assert len(await bench.claim(worker="first")) == 3  # and dies
    for round_ in range(12):
        await bench.pass_time(LEASE_MS + 1_000)
        worker = f"heir{round_}"
        for claimed in await bench.claim(worker=worker):
            if claimed.job_id != "0.poison":
                await bench.queue.settle([success(claimed)])
    records = {name: await bench.queue.get(name) for name in ids}
    assert {"good1": "succeeded", "poison": "failed", "good2": "succeeded"} == {
        n: r["state"] for n, r in records.items()
    }
    assert {"good1": "1", "poison": "3", "good2": "1"} == {n: r["lost"] for n, r in records.items()}
    assert records["poison"]["error"] == "Poisonous"


async def test_a_suspect_runs_alone(bench: Bench) -> None:
    """Its worker gets nothing else until it has ended; other workers go on."""
    await bench.enqueue(id="suspect")
    await bench.claim(worker="dies")
    await bench.pass_time(LEASE_MS + 1_000)
    for i in range(3):
        await bench.enqueue(id=f"other{i}")
    [suspect] = await bench.claim(worker="w1")
    assert suspect.job_id == "0.suspect"
    assert await bench.claim(worker="w1") == ()
    assert ["0.other0"] == [c.job_id for c in await bench.claim(worker="w2", n=1)]
    await bench.queue.settle([success(suspect)])
    assert ["0.other1"] == [c.job_id for c in await bench.claim(worker="w1", n=1)]


async def test_a_suspect_does_not_wait_for_ever(bench: Bench) -> None:
    """When all workers are busy, one of them is given nothing more until it is idle, and then the suspect."""
    await bench.enqueue(id="suspect")
    await bench.claim(worker="dies")
    for i in range(8):
        await bench.enqueue(id=f"other{i}")
    busy = {name: (await bench.claim(worker=name, n=1))[0] for name in ("w1", "w2")}
    for _ in range(4):
        await bench.pass_time(4_500)
        await bench.queue.renew([JobLease(c.job_id, c.lease) for c in busy.values()], LEASE_MS)
    assert await bench.claim(worker="w1", n=1) == ()
    assert len(await bench.claim(worker="w2", n=1)) == 1
    await bench.queue.settle([success(busy["w1"])])
    assert ["0.suspect"] == [c.job_id for c in await bench.claim(worker="w1", n=1)]


async def test_a_suspect_is_not_claimed_beyond_max_inflight(bench: Bench) -> None:
    """It counts among its adapter's running jobs as any other does."""
    await bench.queue.open_adapter("cfo@1", "d", max_inflight=1)
    await bench.enqueue(id="suspect")
    await bench.claim(worker="dies")
    await bench.pass_time(LEASE_MS + 1_000)
    await bench.enqueue("ceo@1", id="busy")
    await bench.enqueue(id="other")
    await bench.queue.pause("cfo@1")
    await bench.claim("ceo@1", worker="w1")
    await bench.queue.resume("cfo@1")
    [other] = await bench.claim(worker="w1")
    assert ("0.other", ()) == (other.job_id, await bench.claim(worker="w2"))
    await bench.queue.settle([success(other)])
    assert ["0.suspect"] == [claimed.job_id for claimed in await bench.claim(worker="w2")]


async def test_suspects_of_a_paused_adapter_hold_up_nobody(bench: Bench) -> None:
    """No busy worker runs dry for them, and a suspect of another adapter has its turn."""
    for index in range(20):
        await bench.enqueue(id=f"paused{index}")
    await bench.claim(n=20, worker="dies")
    await bench.pass_time(LEASE_MS + 4_000)
    await bench.queue.pause("cfo@1")
    for name in ("one", "two"):
        await bench.enqueue("ceo@1", id=name)
    claimed = [await bench.claim("ceo@1", worker="w1", n=1)]
    await bench.pass_time(2_500)
    claimed.append(await bench.claim("ceo@1", worker="w1", n=1))
    assert ["0.one", "0.two"] == [job.job_id for [job] in claimed]
    await bench.queue.settle([success(job) for [job] in claimed])
    await bench.enqueue("ceo@1", id="suspect")
    await bench.claim("ceo@1", worker="dies too")
    await bench.pass_time(LEASE_MS + 4_000)
    claimed = [await bench.claim("ceo@1", worker=name) for name in ("w2", "w3")]
    assert "0.suspect" in {job.job_id for jobs in claimed for job in jobs}


async def test_a_suspect_that_is_retried_stays_one(bench: Bench) -> None:
    """Once a worker vanished with it, a job is claimed alone, also after an attempt that failed and left its worker."""
    await bench.enqueue(id="mine")
    await bench.claim(worker="gone")
    await bench.pass_time(LEASE_MS + 4_000)
    [again] = await bench.claim(worker="w2")
    await bench.queue.settle([Settlement(again.job_id, again.lease, "retry")])
    await bench.enqueue(id="mate")
    await bench.pass_time(6_000)
    assert [("0.mine", 1)] == [(claimed.job_id, claimed.lost) for claimed in await bench.claim(worker="w3")]
    assert () == await bench.claim(worker="w3")
    assert ["0.mate"] == [claimed.job_id for claimed in await bench.claim(worker="w4")]


async def test_an_outage_is_one_by_the_leases_in_use(bench: Bench) -> None:
    """Of a pool with leases of a second three seconds of silence are one, though its workers had looked before any
    claimed."""
    await bench.queue.tick("w1")
    await bench.enqueue(id="mine")
    await bench.queue.claim("w1", "L", ["cfo@1"], 1, 1, 1_000)
    await bench.set_clock(bench.now + 3_000)
    await bench.queue.tick("w2")
    assert await bench.state("mine") == "running"
    await bench.set_clock(bench.now + 1_000)
    await bench.queue.tick("w2")
    assert await bench.state("mine") == "queued"
