from __future__ import annotations

import pytest

from lorapool.shared.codec import decode_job
from lorapool.shared.errors import InvalidRequest, QueueFull, ResultExpired, UnknownAdapter, UnknownJob
from lorapool.shared.queue.protocol import Limits, Settlement
from tests.parts import Queue
from tests.shared.conftest import LEASE_MS, START_MS, Bench

DAY_MS = 86_400_000


@pytest.fixture
def upkeep(bench: Bench) -> Queue:
    return Queue(bench.redis, bench.keys.pool, clock=bench.keys.one("clock"))


async def die(bench: Bench, job_id: str, ref: str = "cfo@1", **fields: object) -> None:
    """Enqueue, and lose its worker until it is dead."""
    await bench.enqueue(ref=ref, id=job_id, **fields)
    for attempt in range(3):
        await bench.claim(ref, worker=f"w{attempt}")
        await bench.pass_time(2 * LEASE_MS + 4_000)
    assert await bench.state(job_id) == "failed"


async def test_the_dead_are_listed_newest_first_in_pages(bench: Bench, upkeep: Queue) -> None:
    """Pages go on where the last ended; an adapter's own can be picked."""
    for job_id, ref in (("a", "cfo@1"), ("b", "ceo@1"), ("c", "cfo@1")):
        await die(bench, job_id, ref)
    page = await upkeep.dead(n=2)
    assert ["0.c", "0.b"] == [letter.job_id for letter in page.letters]
    rest = await upkeep.dead(cursor=page.cursor, n=2)
    assert (["0.a"], "") == ([letter.job_id for letter in rest.letters], rest.cursor)
    [newest, _] = (await upkeep.dead("cfo@1")).letters
    assert ("0.c", "cfo@1", "Poisonous", 3, 3) == (
        newest.job_id,
        newest.ref,
        newest.reason,
        newest.attempts,
        newest.lost,
    )
    assert START_MS < newest.died_ms <= bench.now


async def test_a_dead_letter_is_redriven_once(bench: Bench, upkeep: Queue) -> None:
    """A new job with the same request, counted as submitted; the repeat finds it, the dead one stays dead."""
    await die(bench, "mine", agent="board-7", priority="high", deadline_ms=600_000)
    before = await bench.queue.get("mine")
    again = await upkeep.redrive("mine")
    assert again.created
    assert again.job_id == (repeat := await upkeep.redrive("0.mine")).job_id
    assert not repeat.created
    after = await bench.queue.get("mine")
    record = await bench.queue.get(again.job_id)
    assert before is not None
    assert record is not None
    assert {**before, "redriven": again.job_id.removeprefix("0.")} == after
    same = ("ref", "digest", "agent", "priority", "seed", "fingerprint", "client", "cost")
    assert {name: before[name] for name in same} == {name: record[name] for name in same}
    assert ("mine", "0", str(bench.now + 600_000)) == (record["redrive_of"], record["lost"], record["deadline_ms"])
    [claimed] = await bench.claim()
    assert (again.job_id, 1) == (claimed.job_id, claimed.attempt)
    assert decode_job(claimed.payload).prompt == "How long is our runway?"
    await bench.queue.settle([Settlement(claimed.job_id, claimed.lease, "succeeded")])
    stats = await bench.queue.counters.of_adapter("cfo@1")
    assert (2, 1, 1, 1) == (stats["submitted"], stats["dead"], stats["failed"], stats["succeeded"])
    [letter] = (await upkeep.dead()).letters
    assert letter.redriven_as == again.job_id


async def test_only_dead_letters_are_redriven(bench: Bench, upkeep: Queue) -> None:
    """Not the living, not the unknown, not those whose request is gone, not beyond a limit."""
    await bench.enqueue(id="alive")
    with pytest.raises(InvalidRequest, match="is queued and no dead letter"):
        await upkeep.redrive("alive")
    with pytest.raises(UnknownJob):
        await upkeep.redrive("nobody")
    await die(bench, "dead", ref="ceo@1")
    await upkeep.limits("ceo@1", max_depth=1)
    await bench.enqueue("ceo@1", id="other")
    with pytest.raises(QueueFull, match="adapter limit is 1"):
        await upkeep.redrive("dead")
    await bench.queue.cancel("other")
    await bench.redis.delete(bench.keys.payload("dead"))
    with pytest.raises(ResultExpired):
        await upkeep.redrive("dead")


async def test_dead_letters_are_purged_by_adapter_and_age(bench: Bench, upkeep: Queue) -> None:
    """The letter and its request go; the job's end stays as any other's."""
    await die(bench, "old")
    await die(bench, "other", ref="ceo@1")
    died = bench.now
    await bench.set_clock(died + 60_000)
    await die(bench, "new")
    old = await upkeep.purge_dead("cfo@1", older_than_ms=bench.now - died - 1_000)
    assert (1, "") == (old.count, old.cursor)
    assert ["0.new", "0.other"] == [letter.job_id for letter in (await upkeep.dead()).letters]
    assert not await bench.redis.exists(bench.keys.payload("old"))
    assert await bench.state("old") == "failed"
    assert 0 < await bench.redis.pttl(bench.keys.job("old")) <= DAY_MS
    assert 2 == (await upkeep.purge_dead()).count
    assert 0 == (await upkeep.purge_dead()).count


async def test_old_letters_go_by_themselves(bench: Bench, upkeep: Queue) -> None:
    """After seven days, whoever comes by drops them."""
    await die(bench, "mine")
    await bench.set_clock(bench.now + 7 * DAY_MS - 60_000)
    await bench.queue.tick("w")
    assert 1 == len((await upkeep.dead()).letters)
    await bench.set_clock(bench.now + 120_000)
    await bench.queue.tick("w")
    assert () == (await upkeep.dead()).letters


async def test_what_waits_for_an_adapter_is_purged(bench: Bench, upkeep: Queue) -> None:
    """Queued, suspect and delayed ones are cancelled, page by page; running and others' jobs stay."""
    await upkeep.limits("cfo@1", agent_window=1_000)
    await bench.enqueue(id="suspect")
    await bench.claim()
    await bench.pass_time(LEASE_MS + 4_000)
    for i in range(150):
        await bench.enqueue(id=f"q{i}", priority=("high", "normal", "low")[i % 3])
    await bench.enqueue(id="later", delay_ms=60_000)
    await bench.enqueue("ceo@1", id="others")
    cursor, counts = "", []
    while True:
        purged = await upkeep.purge_waiting("cfo@1", cursor)
        counts.append(purged.count)
        if not (cursor := purged.cursor):
            break
    assert 152 == sum(counts)
    assert max(counts) <= 64
    assert "cancelled" == await bench.state("suspect") == await bench.state("later") == await bench.state("q149")
    assert "queued" == await bench.state("others")
    assert {"ceo@1": 1} == await bench.queue.depths()
    assert 0 == (await upkeep.purge_waiting("cfo@1")).count


async def test_limits_are_set_shown_and_reset(bench: Bench, upkeep: Queue) -> None:
    """What is not set is the default, shown as None."""
    assert Limits() == await upkeep.limits("cfo@1")
    given = await upkeep.limits("cfo@1", max_depth=5, weight=2.5)
    assert Limits(max_depth=5, weight=2.5) == given == await upkeep.limits("cfo@1")
    assert Limits(weight=2.5) == await upkeep.limits("cfo@1", max_depth=None)
    with pytest.raises(UnknownAdapter):
        await upkeep.limits("nobody@1", max_depth=1)
    for wrong in ({"max_depth": 0}, {"weight": -1.0}, {"max_depth": 1.5}, {"depth": 3}, {"weight": float("nan")}):
        with pytest.raises(InvalidRequest):
            await upkeep.limits("cfo@1", **wrong)
    with pytest.raises(InvalidRequest):
        await upkeep.limits(weight=1.0)


async def test_the_pool_has_a_depth_of_its_own(bench: Bench, upkeep: Queue) -> None:
    """Over all adapters together; the refusal says so and gives the numbers."""
    assert Limits(max_depth=2) == await upkeep.limits(max_depth=2)
    await bench.enqueue("cfo@1")
    await bench.enqueue("ceo@1")
    with pytest.raises(QueueFull, match="2 jobs waiting in the pool, the pool limit is 2") as refused:
        await bench.enqueue("cfo@1")
    assert ("pool", 2, 2) == (refused.value.scope, refused.value.depth, refused.value.limit)
    await upkeep.limits(max_depth=None)
    await bench.enqueue("cfo@1")


async def test_raising_max_inflight_makes_work_claimable(bench: Bench, upkeep: Queue) -> None:
    """At once, without another job."""
    await upkeep.limits("cfo@1", max_inflight=1)
    await bench.enqueue()
    await bench.enqueue()
    assert 1 == len(await bench.claim())
    assert () == await bench.claim()
    await upkeep.limits("cfo@1", max_inflight=2)
    assert 1 == len(await bench.claim())
