"""What becomes of jobs whose worker vanished: how they run again, who for, and when the loss is taken back."""

from __future__ import annotations

from collections import Counter

import pytest

from lorapool.shared.queue.protocol import ClaimedJob, Delta, JobLease, Settlement
from tests.shared.conftest import LEASE_MS, Bench

ROWS = 64


async def succeed(bench: Bench, *claimed: ClaimedJob) -> None:
    await bench.queue.settle([Settlement(c.job_id, c.lease, "succeeded") for c in claimed])


async def renew(bench: Bench, *claimed: ClaimedJob, lease_ms: int = LEASE_MS) -> None:
    await bench.queue.renew([JobLease(c.job_id, c.lease) for c in claimed], lease_ms)


async def vanish(bench: Bench, count: int, ref: str = "cfo@1", worker: str = "gone") -> list[str]:
    """So many jobs, lost with their worker."""
    await bench.queue.open_adapter(ref, "ab" * 32, agent_window=1_000)
    ids = [await bench.enqueue(ref) for _ in range(count)]
    assert count == len(await bench.claim(ref, n=count, worker=worker))
    await bench.pass_time(LEASE_MS + 2_000)
    return ids


async def losses(bench: Bench, ids: list[str]) -> Counter[str]:
    return Counter(str(record["lost"]) for record in await bench.queue.get_many(ids) if record is not None)


async def test_what_was_lost_together_runs_again_in_halves(bench: Bench) -> None:
    """A worker with 64 jobs is killed: one other runs them in two rounds, and claims nothing beside them."""
    ids = await vanish(bench, ROWS)
    await bench.enqueue(id="other")
    first = await bench.claim(n=ROWS, worker="w1")
    assert () == await bench.claim(n=ROWS, worker="w1")
    await succeed(bench, *first)
    second = await bench.claim(n=ROWS, worker="w1")
    assert (32, 32) == (len(first), len(second))
    assert set(ids) == {claimed.job_id for claimed in (*first, *second)}


async def test_what_a_worker_loses_bit_by_bit_was_lost_together(bench: Bench) -> None:
    """Its leases lapse one after another, claim by claim: still there are two rounds, in which all are equally many."""
    await bench.queue.open_adapter("cfo@1", "ab" * 32, agent_window=1_000)
    ids = [await bench.enqueue("cfo@1") for _ in range(ROWS)]
    for count in (8, 28, 12, 16):
        assert count == len(await bench.claim("cfo@1", n=count, worker="gone"))
        await bench.pass_time(400)
    await bench.pass_time(LEASE_MS + 2_000)
    assert ROWS == await bench.redis.zcard(bench.keys.one("suspects"))
    rounds = []
    for _ in range(2):
        rounds.append(await bench.claim(n=ROWS, worker="w1"))
        await succeed(bench, *rounds[-1])
    assert [32, 32] == [len(claimed) for claimed in rounds]
    assert set(ids) == {claimed.job_id for claimed in (*rounds[0], *rounds[1])}


async def test_what_was_lost_long_before_is_no_mate(bench: Bench) -> None:
    """A worker's later loss runs apart from its earlier one."""
    losses: list[list[str]] = []
    for _ in range(2):
        losses.append([await bench.enqueue("cfo@1") for _ in range(4)])
        assert 4 == len(await bench.claim("cfo@1", worker="gone"))
        await bench.pass_time(LEASE_MS // 2)
    while await bench.redis.zcard(bench.keys.one("suspects")) < 8:
        await bench.pass_time(1_000)
        await bench.redis.delete(bench.keys.one("reaped:gone"))  # as the server does, by its own clock
    for lost in losses:
        claimed = await bench.claim(n=ROWS, worker="w1")
        assert set(lost) == {job.job_id for job in claimed}
        await succeed(bench, *claimed)


async def test_a_round_is_as_large_as_the_worker(bench: Bench) -> None:
    """And never mixes what different workers lost."""
    for ref, count in (("cfo@1", 5), ("ceo@1", 3)):
        for _ in range(count):
            await bench.enqueue(ref)
        await bench.claim(ref, worker=f"gone with {ref}")
    await bench.pass_time(LEASE_MS + 2_000)
    rounds = []
    for _ in range(5):
        rounds.append(await bench.claim("cfo@1", "ceo@1", worker="w1", suspects=2))
        await succeed(bench, *rounds[-1])
    assert [2, 2, 1, 2, 1] == [len(claimed) for claimed in rounds]
    assert all(len({claimed.ref for claimed in group}) == 1 for group in rounds)


async def test_a_deadly_job_takes_no_mate_with_it(bench: Bench) -> None:
    """Of 64 jobs of a killed worker one is deadly: it dies of its third loss, and no other is lost three times."""
    ids = await vanish(bench, ROWS)
    deadly, workers, alone = ids[17], 0, 0
    for _ in range(200):
        claimed = await bench.claim(n=ROWS, worker=f"w{workers}")
        alone += len(claimed) == 1
        if deadly in {c.job_id for c in claimed}:
            workers += 1
            await bench.pass_time(2 * LEASE_MS + 6_000)
        else:
            await succeed(bench, *claimed)
    states = Counter([await bench.state(job_id) for job_id in ids])
    assert {"succeeded": 63, "failed": 1} == states
    assert "Poisonous" == (await bench.queue.get(deadly))["error"]
    assert {"1": 32, "2": 31, "3": 1} == await losses(bench, ids)
    later = len([job_id for job_id in sorted(ids)[:32] if job_id > deadly])
    assert alone == (32 - later if later != 1 else 32), "once it is found, its mates need not run alone"


async def test_others_work_goes_on(bench: Bench) -> None:
    """While one worker goes apart, idle ones take ordinary work at once, and no suspect though there are more."""
    await vanish(bench, ROWS)
    await bench.claim(n=ROWS, worker="w1")
    for name in ("w2", "w3"):
        await bench.enqueue(id=name)
        assert [f"0.{name}"] == [claimed.job_id for claimed in await bench.claim(worker=name)]
        view = await bench.queue.tick(name)
        assert (False, 0) == (view.apart, view.suspects)


@pytest.mark.parametrize(("present", "places"), [(5, 1), (28, 2)])
async def test_a_tenth_of_the_workers_goes_apart(bench: Bench, present: int, places: int) -> None:
    await vanish(bench, ROWS)
    for index in range(present):
        await bench.queue.tick(f"w{index}")
    claims = [await bench.claim(n=4, worker=f"w{index}") for index in range(present)]
    assert places == sum(bool(claimed) for claimed in claims)


async def test_a_job_longer_than_any_timer_is_waited_for(bench: Bench) -> None:
    """Both workers run jobs of 100 s. One of them keeps its place while it runs dry, full as it is, and starts what was
    lost as soon as its own longest job has ended; the other goes on."""
    await bench.queue.open_adapter("ceo@1", "ab" * 32, agent_window=1_000)
    for _ in range(20):
        await bench.enqueue("ceo@1")
    long = {name: await bench.claim("ceo@1", worker=name, n=2) for name in ("w1", "w2")}
    await renew(bench, *long["w1"], *long["w2"], lease_ms=200_000)
    [lost] = await vanish(bench, 1)
    for _ in range(25):
        await bench.queue.tick("w1")
        await bench.queue.tick("w2")
        await bench.pass_time(4_000)
    assert [True, False] == [(await bench.queue.tick(name)).apart for name in ("w1", "w2")]
    await succeed(bench, long["w1"][0], *long["w2"])
    assert () == await bench.claim("ceo@1", worker="w1")
    assert len(await bench.claim("ceo@1", worker="w2", n=2)) == 2
    await succeed(bench, long["w1"][1])
    assert [lost] == [claimed.job_id for claimed in await bench.claim("ceo@1", worker="w1")]


async def test_the_place_of_one_that_vanished_falls_free(bench: Bench) -> None:
    """Within seconds, though it was on its way to run suspects and never did."""
    await bench.enqueue("ceo@1")
    await renew(bench, *await bench.claim("ceo@1", worker="w1"), lease_ms=200_000)
    [lost] = await vanish(bench, 1)
    assert (await bench.queue.tick("w1")).apart
    assert () == await bench.claim(worker="w2")
    await bench.pass_time(6_000)
    assert lost in {claimed.job_id for claimed in await bench.claim(worker="w2")}


async def test_the_only_worker_shares_its_time(bench: Bench) -> None:
    """It runs one round of suspects, then what others asked for before that round ended, then the next round."""
    await bench.queue.open_adapter("cfo@1", "ab" * 32, agent_window=1_000)
    for _ in range(4):
        await bench.enqueue()
    await bench.claim(n=4, worker="gone")
    for _ in range(10):
        await bench.set_clock(bench.now + 2_000)
        await bench.queue.tick("w1")
    seen = []
    for _ in range(4):
        await bench.enqueue("ceo@1")
        claimed = await bench.claim("ceo@1", worker="w1", suspects=2)
        await bench.set_clock(bench.now + 1_000)
        await succeed(bench, *claimed)
        seen.append({c.ref for c in claimed})
    assert [{"cfo@1"}, {"ceo@1"}, {"cfo@1"}, {"ceo@1"}] == seen


@pytest.mark.parametrize("sign", ["renew", "settle", "emit", "release"])
async def test_a_worker_that_comes_back_was_only_slow(bench: Bench, sign: str) -> None:
    """Any word under the lease that was reaped takes the loss back, once: the job waits in an ordinary lane."""
    await bench.enqueue(id="mine")
    [slow] = await bench.claim(worker="slow")
    await bench.pass_time(LEASE_MS + 2_000)
    held = [JobLease("0.mine", slow.lease)]
    for _ in range(2):
        if sign == "renew":
            assert ("0.mine",) == (await bench.queue.renew(held, LEASE_MS)).lost
        elif sign == "settle":
            assert "stale" == (await bench.queue.settle([Settlement("0.mine", slow.lease, "succeeded")]))[0].outcome
        elif sign == "emit":
            await bench.queue.emit([Delta("0.mine", slow.lease, 1, 0, "x", (1,))])
        else:
            await bench.queue.release(held)
    record = await bench.queue.get("mine")
    assert ("queued", "retry", "1", "1") == tuple(record[name] for name in ("state", "lane", "lost", "lifted"))
    await bench.enqueue(id="mate")
    assert ["0.mine", "0.mate"] == [claimed.job_id for claimed in await bench.claim(worker="w1")]
    assert (await bench.queue.counters.of_adapter("cfo@1"))["lifted"] == 1


async def test_slow_workers_kill_no_job(bench: Bench) -> None:
    """Lost five times to workers that came back, a job runs on; lost three times to ones that did not, it is dead, and
    stays so when they come back after all."""
    await bench.enqueue(id="mine")
    for _ in range(5):
        [claimed] = await bench.claim(worker="slow")
        await bench.pass_time(LEASE_MS + 6_000)
        await renew(bench, claimed)
    assert "queued" == await bench.state("mine")
    gone: list[ClaimedJob] = []
    for _ in range(3):
        gone += await bench.claim(worker="gone")
        await bench.pass_time(2 * LEASE_MS + 6_000)
    await renew(bench, *gone)
    record = await bench.queue.get("mine")
    assert ("failed", "Poisonous", "8", "5") == tuple(record[name] for name in ("state", "error", "lost", "lifted"))


async def test_nobody_dies_of_a_slow_worker(bench: Bench) -> None:
    """Lost twice with workers that are gone, a job runs on one that is slow: it has twice the time to come back, and
    goes on under the same lease."""
    await bench.enqueue(id="mine")
    for worker in ("gone", "gone too"):
        await bench.claim(worker=worker)
        await bench.pass_time(LEASE_MS + 6_000)
    [claimed] = await bench.claim(worker="slow")
    for _ in range(2):
        await bench.pass_time(LEASE_MS + 6_000)
        assert () == (await bench.queue.renew([JobLease("0.mine", claimed.lease)], LEASE_MS)).lost
    await succeed(bench, claimed)
    record = await bench.queue.get("mine")
    assert ("succeeded", "2", "3") == tuple(record[name] for name in ("state", "lost", "attempts"))


async def test_a_loss_that_was_admitted_is_not_taken_back(bench: Bench) -> None:
    """A renewal that was under way when the worker said that its engine died with the job."""
    await bench.enqueue(id="mine")
    [claimed] = await bench.claim()
    await bench.queue.lose([JobLease("0.mine", claimed.lease)])
    await renew(bench, claimed)
    assert "suspect" == (await bench.queue.get("mine"))["lane"]


async def test_a_worker_is_believed_that_it_holds_nothing(bench: Bench) -> None:
    """Though the server counts a job of its that there is none of: it runs the suspect, and then goes on."""
    [lost] = await vanish(bench, 1)
    await bench.redis.hset(bench.keys.one("held"), "w1", 1)
    assert (await bench.queue.tick("w1")).suspects
    [again] = (await bench.queue.claim("w1", "b.1", (), 8, 8, LEASE_MS)).jobs
    assert lost == again.job_id
    await succeed(bench, again)
    other = await bench.enqueue()
    assert [other] == [claimed.job_id for claimed in await bench.claim(worker="w1")]


async def test_a_lease_that_never_ends_is_cut_short(bench: Bench) -> None:
    """By whoever comes by: what it held runs again."""
    await bench.enqueue(id="astray")
    await bench.claim()
    await bench.redis.zadd(bench.keys.one("leases"), {"astray": "inf"})
    await bench.pass_time(LEASE_MS + 4_000)
    assert "suspect" == (await bench.queue.get("astray") or {})["lane"]


@pytest.mark.parametrize("text", ["{now} 9999999999999 9999999999999", "{now} 9999999999999 15000"])
async def test_no_word_about_the_reaper_ends_reaping(bench: Bench, text: str) -> None:
    """Its key says that all workers were away until some far day, or that leases take years."""
    await bench.enqueue(id="mine")
    await bench.claim(worker="gone")
    await bench.redis.set(bench.keys.one("reaper"), text.format(now=bench.now))
    await bench.pass_time(2 * LEASE_MS + 4_000)
    assert "suspect" == (await bench.queue.get("mine") or {})["lane"]
