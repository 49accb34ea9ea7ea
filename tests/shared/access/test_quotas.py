"""Quotas: what a key is charged, by every way in which a job may begin and end, and whoever asks how often."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any

import pytest

from lorapool.shared.access.key_book import KeyBook
from lorapool.shared.errors import Fate, LorapoolError, QueueFull, QuotaExceeded, UnknownKey
from lorapool.shared.job import JobState
from lorapool.shared.queue.protocol import ClaimedJob, JobLease, Settlement
from tests.shared.conftest import LEASE_MS, START_MS, Bench, job

MINUTE_MS, DAY_MS = 60_000, 24 * 3_600_000
COST = 100  # of ``paid``'s jobs: no prompt to speak of, so many new tokens


def paid(**fields: Any) -> Any:
    return job(**{"key": "board-7", "prompt": "x", "params": {"max_new_tokens": COST}, **fields})


async def used(keys: KeyBook, name: str = "board-7") -> tuple[int, int]:
    """(jobs in this minute, tokens in this day)."""
    [use] = [use for use in await keys.list() if use.key.name == name]
    return use.jobs, use.tokens


def ended(claimed: ClaimedJob, outcome: str, prompt: int = 7, completion: int = 5, **fields: Any) -> Settlement:
    tokens = {"prompt_tokens": prompt, "completion_tokens": completion}
    return Settlement(claimed.job_id, claimed.lease, outcome, **tokens, **fields)


@pytest.fixture(autouse=True)
async def board(keys: KeyBook) -> None:
    await keys.add("board-7", jobs_per_minute=1000, tokens_per_day=100_000)


# -- refusals


async def test_a_minutes_jobs(bench: Bench, keys: KeyBook) -> None:
    """The next one is refused with the numbers and how long to wait; the next minute is a new one."""
    await keys.add("small", jobs_per_minute=2)
    await bench.set_clock(START_MS + 15_000)
    for _ in range(2):
        await bench.queue.enqueue(paid(key="small"))
    with pytest.raises(QuotaExceeded, match=r"key small has used 2 of its 2 jobs .* ends in 45 s") as refused:
        await bench.queue.enqueue(paid(key="small", id="third"))
    error = refused.value
    assert ("small", "jobs_per_minute", 2, 2, 45.0) == (
        error.key, error.limit_name, error.limit, error.used, error.retry_after_s,
    )  # fmt: skip
    assert ("0.third", Fate.NOT_QUEUED) == (error.job_id, error.fate)
    await bench.set_clock(START_MS + MINUTE_MS)
    await bench.queue.enqueue(paid(key="small", id="third"))
    assert (1, 3 * COST) == await used(keys, "small")


async def test_a_days_tokens(bench: Bench, keys: KeyBook) -> None:
    """Those reserved count; the day is UTC's."""
    await keys.add("small", tokens_per_day=250)
    await bench.set_clock(START_MS - START_MS % DAY_MS + 23 * 3_600_000)
    for _ in range(2):
        await bench.queue.enqueue(paid(key="small"))
    with pytest.raises(QuotaExceeded, match="200 of its 250 tokens") as refused:
        await bench.queue.enqueue(paid(key="small"))
    assert ("tokens_per_day", 250, 200, 3600.0) == (
        refused.value.limit_name, refused.value.limit, refused.value.used, refused.value.retry_after_s,
    )  # fmt: skip
    await bench.queue.enqueue(paid(key="small", params={"max_new_tokens": 50}))
    await bench.set_clock(bench.now + 3_600_000)
    await bench.queue.enqueue(paid(key="small"))
    assert (1, COST) == await used(keys, "small")


@pytest.mark.parametrize("name", ["nobody", "revoked"])
async def test_a_key_that_is_none(bench: Bench, keys: KeyBook, name: str) -> None:
    """Neither unknown nor revoked ones are charged; nothing is queued."""
    await keys.add("revoked")
    await keys.revoke("revoked")
    with pytest.raises(UnknownKey, match=name) as refused:
        await bench.queue.enqueue(paid(key=name))
    assert Fate.NOT_QUEUED is refused.value.fate
    assert {} == await bench.queue.depths()
    assert not await bench.redis.exists(bench.keys.quota(name))


async def test_what_is_refused_is_not_charged(bench: Bench, keys: KeyBook) -> None:
    """For want of room, or since the adapter is closed; nor what is beside it in a batch."""
    await bench.queue.limits("cfo@1", max_depth=1)
    await bench.queue.close_adapter("ceo@1")
    outcomes = await bench.queue.enqueue_many([paid(), paid(), paid(ref="ceo@1"), paid(key="nobody")])
    assert 3 == sum(isinstance(outcome, LorapoolError) for outcome in outcomes)
    assert (1, COST) == await used(keys)


async def test_one_batch_is_charged_as_one_after_another(bench: Bench, keys: KeyBook) -> None:
    """Jobs of several keys in one call: each key's quota is heeded job by job."""
    await keys.add("few", jobs_per_minute=2)
    await keys.add("short", tokens_per_day=COST)
    jobs = [paid(key=name) for _ in range(3) for name in ("few", "short", "board-7")]
    outcomes = await bench.queue.enqueue_many(jobs)
    refused = Counter(outcome.key for outcome in outcomes if isinstance(outcome, QuotaExceeded))
    assert {"few": 1, "short": 2} == refused
    assert [(2, 2 * COST), (1, COST), (3, 3 * COST)] == [await used(keys, n) for n in ("few", "short", "board-7")]


async def test_without_a_key_nothing_is_charged(bench: Bench, keys: KeyBook) -> None:
    await bench.enqueue()
    [claimed] = await bench.claim()
    await bench.queue.settle([ended(claimed, "succeeded")])
    assert (0, 0) == await used(keys)
    assert [] == await bench.redis.keys(bench.keys.quota("*"))


async def test_many_at_once(bench: Bench, keys: KeyBook) -> None:
    """However many ask at the same moment, from however many processes: as many as the quota allows get in."""
    await keys.add("many", jobs_per_minute=37)
    await bench.queue.limits("cfo@1", agent_window=1000)
    asked = [bench.queue.enqueue(paid(key="many")) for _ in range(100)]
    outcomes = await asyncio.gather(*asked, return_exceptions=True)
    assert 37 == sum(not isinstance(outcome, QuotaExceeded) for outcome in outcomes)
    assert (37, 37 * COST) == await used(keys, "many")


# -- what a job costs in the end


@pytest.mark.parametrize("outcome", ["succeeded", "failed", "dead", "cancelled", "expired"])
async def test_a_settled_job_costs_what_it_used(bench: Bench, keys: KeyBook, outcome: str) -> None:
    """Whatever was reserved, and however often the settlement is sent."""
    await bench.queue.enqueue(paid())
    [claimed] = await bench.claim()
    assert (1, COST) == await used(keys)
    for _ in range(3):
        await bench.queue.settle([ended(claimed, outcome, error="E")])
    assert (1, 12) == await used(keys)


async def test_more_than_was_reserved(bench: Bench, keys: KeyBook) -> None:
    """A prompt of more tokens than its length promised: charged whole, and the quota may be exceeded by it."""
    await keys.add("small", tokens_per_day=150)
    await bench.queue.enqueue(paid(key="small"))
    [claimed] = await bench.claim()
    await bench.queue.settle([ended(claimed, "succeeded", prompt=140, completion=20)])
    assert (1, 160) == await used(keys, "small")
    with pytest.raises(QuotaExceeded, match="160 of its 150"):
        await bench.queue.enqueue(paid(key="small", params={"max_new_tokens": 1}))


async def test_retries_are_paid_once(bench: Bench, keys: KeyBook) -> None:
    """While a job is tried again its reservation stands; the attempt that ended it is what it costs."""
    await bench.queue.enqueue(paid())
    for _ in range(2):
        [claimed] = await bench.claim()
        await bench.queue.settle([ended(claimed, "retry", prompt=50, completion=50, error="E")])
        assert (1, COST) == await used(keys)
        await bench.pass_time(20_000)
    [claimed] = await bench.claim()
    await bench.queue.settle([ended(claimed, "retry", error="E")])
    assert "failed" == await bench.state(claimed.job_id)
    assert 12 == (await used(keys))[1]


async def test_a_job_that_never_ran_costs_nothing(bench: Bench, keys: KeyBook) -> None:
    """Cancelled or expired while it waited or was delayed, purged with its adapter's, released: but the minute's job
    is spent."""
    cancelled, delayed = paid(), paid(delay_ms=5_000)
    await bench.queue.enqueue_many([cancelled, delayed, paid(deadline_ms=1_000), paid(ref="ceo@1")])
    assert (4, 4 * COST) == await used(keys)
    await bench.queue.cancel(cancelled.id)
    await bench.queue.cancel(cancelled.id)
    await bench.queue.cancel(delayed.id)
    assert (4, 2 * COST) == await used(keys)
    await bench.pass_time(2_000)
    assert (4, COST) == await used(keys)
    await bench.queue.purge_waiting("ceo@1")
    assert (4, 0) == await used(keys)


async def test_a_claimed_job_whose_deadline_passed(bench: Bench, keys: KeyBook) -> None:
    """Found overdue by the claim, and by the client's own wish."""
    await bench.queue.enqueue(paid(deadline_ms=1_000))
    await bench.set_clock(START_MS + 1_001)
    assert () == await bench.claim()
    assert (1, 0) == await used(keys)
    late = await bench.queue.enqueue(paid(deadline_ms=1_000))
    await bench.set_clock(START_MS + 3_000)
    assert JobState.EXPIRED is await bench.queue.expire(late.job_id)
    assert (2, 0) == await used(keys)


async def test_a_released_job_keeps_its_reservation(bench: Bench, keys: KeyBook) -> None:
    await bench.queue.enqueue(paid())
    [claimed] = await bench.claim()
    await bench.queue.release([JobLease(claimed.job_id, claimed.lease)])
    assert (1, COST) == await used(keys)
    [claimed] = await bench.claim()
    await bench.queue.cancel(claimed.job_id)
    await bench.queue.release([JobLease(claimed.job_id, claimed.lease)])
    assert "cancelled" == await bench.state(claimed.job_id)
    assert (1, 0) == await used(keys)


async def test_a_lost_job(bench: Bench, keys: KeyBook) -> None:
    """Its reservation stands until it ends: given up as deadly, it costs nothing, and its late answer neither."""
    await bench.queue.enqueue(paid())
    claims: list[ClaimedJob] = []
    for _ in range(3):
        claims += await bench.claim(worker="w1")
        await bench.queue.lose([JobLease(claims[-1].job_id, claims[-1].lease)])
    assert "failed" == await bench.state(claims[-1].job_id)
    await bench.queue.settle([ended(claim, "succeeded") for claim in claims])
    assert (1, 0) == await used(keys)


async def test_a_reaped_job_that_succeeds_elsewhere(bench: Bench, keys: KeyBook) -> None:
    """The worker that lost it settles too late: charged once, by the one whose answer stands."""
    await bench.queue.enqueue(paid())
    [first] = await bench.claim(worker="w1")
    await bench.pass_time(2 * LEASE_MS)
    [second] = await bench.claim(worker="w2")
    await bench.queue.settle([ended(first, "succeeded", prompt=90, completion=90)])
    assert COST == (await used(keys))[1]
    await bench.queue.settle([ended(second, "succeeded")])
    assert 12 == (await used(keys))[1]


async def test_a_job_whose_request_was_lost(bench: Bench, keys: KeyBook) -> None:
    """Ended by a check of the partition."""
    enqueued = await bench.queue.enqueue(paid())
    await bench.redis.delete(bench.keys.payload(enqueued.job_id))
    cursor = ""
    while cursor or await bench.state(enqueued.job_id) != "failed":
        cursor = (await bench.queue.fsck(cursor)).cursor
    assert (1, 0) == await used(keys)


async def test_a_job_of_yesterday(bench: Bench, keys: KeyBook) -> None:
    """What it was charged is yesterday's; its end takes nothing from today's use, and adds nothing."""
    midnight = START_MS - START_MS % DAY_MS + DAY_MS
    await bench.set_clock(midnight - 1)
    await bench.queue.enqueue(paid())
    [claimed] = await bench.claim()
    await bench.set_clock(midnight + 1)
    await bench.queue.enqueue(paid())
    await bench.queue.settle([ended(claimed, "succeeded")])
    assert (1, COST) == await used(keys)


# -- repeats


async def test_the_same_job_again_reserves_nothing(bench: Bench, keys: KeyBook) -> None:
    """While it waits, and when it has ended; also where the quota is used up or the key revoked meanwhile."""
    await keys.add("once", jobs_per_minute=1, tokens_per_day=COST)
    mine = paid(key="once", id="mine")
    assert (True, False) == ((await bench.queue.enqueue(mine)).created, (await bench.queue.enqueue(mine)).created)
    [claimed] = await bench.claim()
    await bench.queue.settle([ended(claimed, "succeeded")])
    await keys.revoke("once")
    assert not (await bench.queue.enqueue(mine)).created
    assert (1, 12) == await used(keys, "once")


async def test_what_was_submitted_before_a_key_was_revoked_goes_on(bench: Bench, keys: KeyBook) -> None:
    """It runs, is answered and corrected; a new key of that name goes on with what was used."""
    await bench.queue.enqueue(paid())
    [claimed] = await bench.claim()
    await keys.revoke("board-7")
    await bench.queue.settle([ended(claimed, "succeeded")])
    assert "succeeded" == await bench.state(claimed.job_id)
    await keys.add("board-7", jobs_per_minute=1)
    assert (1, 12) == await used(keys)
    with pytest.raises(QuotaExceeded):
        await bench.queue.enqueue(paid())


async def test_a_redriven_job_is_charged_to_its_key(bench: Bench, keys: KeyBook) -> None:
    """Once, however often it is asked for; beyond the quota, or once the key is revoked, it is refused."""
    await keys.add("two", jobs_per_minute=2)
    dead = [paid(key="two", id=f"d{n}", prompt=f"{n}") for n in range(2)]
    await bench.queue.enqueue_many(dead)
    for claimed in await bench.claim():
        await bench.queue.settle([ended(claimed, "dead", error="E")])
    assert (2, 24) == await used(keys, "two")
    with pytest.raises(QuotaExceeded):
        await bench.queue.redrive("d0")
    await bench.set_clock(START_MS + MINUTE_MS)
    first = await bench.queue.redrive("d0")
    assert first.job_id == (await bench.queue.redrive("d0")).job_id
    assert (1, 24 + COST) == await used(keys, "two")
    assert "two" == (await bench.queue.get(first.job_id))["key"]
    await keys.revoke("two")
    with pytest.raises(UnknownKey):
        await bench.queue.redrive("d1")


# -- windows and weights


async def test_a_keys_window_stands_for_its_adapters(bench: Bench, keys: KeyBook) -> None:
    """Wider or narrower than the adapter's own; it is also what a fair share is a quarter of."""
    await bench.queue.limits("cfo@1", agent_window=4)
    await keys.add("wide", agent="wide", window=8)
    await keys.add("narrow", agent="narrow", window=1)
    for n in range(8):
        await bench.queue.enqueue(paid(key="wide", agent="wide", id=f"w{n}"))
    await bench.queue.enqueue(paid(key="narrow", agent="narrow", delay_ms=1_000, id="n0"))
    for name, depth in (("wide", 8), ("narrow", 1)):
        with pytest.raises(
            QueueFull, match=f"agent {name} has {depth} jobs waiting on cfo@1, the agent limit is {depth}"
        ):
            await bench.queue.enqueue(paid(key=name, agent=name))
    lanes = [(await bench.queue.get(f"w{n}"))["lane"] for n in range(8)]
    assert ["normal"] * 2 + ["normal_over_quota"] * 6 == lanes


# -- what it costs


async def commands(bench: Bench, work: Any) -> Counter[str]:
    """How often each Redis command ran, within scripts or not."""
    await bench.redis.config_resetstat()
    await work
    stats = await bench.redis.info("commandstats")
    return Counter({name.removeprefix("cmdstat_"): facts["calls"] for name, facts in stats.items()})


async def test_a_key_costs_four_commands_a_call(bench: Bench) -> None:
    """Two reads and two writes a call and key, however many jobs; without a key there is none of it."""
    await bench.enqueue()  # the server knows the script
    free = await commands(bench, bench.queue.enqueue_many([job(key=None) for _ in range(5)]))
    charged = await commands(bench, bench.queue.enqueue_many([paid() for _ in range(5)]))
    assert Counter({"hmget": 2, "hset": 1, "pexpire": 1}) == charged - free
    assert not free - charged


async def test_what_was_used_is_kept_for_two_days(bench: Bench) -> None:
    """A check gives a time to live to one that has none."""
    await bench.queue.enqueue(paid())
    key = bench.keys.quota("board-7")
    assert DAY_MS < await bench.redis.pttl(key) <= 2 * DAY_MS
    await bench.redis.persist(key)
    damages: list[str] = []
    cursor = ""
    while cursor or not damages:
        step = await bench.queue.fsck(cursor)
        damages, cursor = damages + [finding.damage for finding in step.findings], step.cursor
    assert ["key_without_ttl"] == damages
    assert 0 < await bench.redis.pttl(key) <= 2 * DAY_MS


@pytest.mark.parametrize(
    "damage", [{"tokens": "many"}, {"jobs": "-"}, {"day_ms": "x", "minute_ms": "y"}, {"tokens": "1e999"}]
)
async def test_a_damaged_quota_counts_anew(bench: Bench, keys: KeyBook, damage: dict[str, str]) -> None:
    """It stops nobody; what was written there is as if nothing was used."""
    await bench.queue.enqueue(paid())
    await bench.redis.hset(bench.keys.quota("board-7"), mapping=damage)
    await bench.queue.enqueue(paid())
    jobs, tokens = await used(keys)
    assert (jobs in {1, 2}, tokens in {COST, 2 * COST}) == (True, True)
