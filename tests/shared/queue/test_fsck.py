"""Damage of every kind, planted by raw commands: found, repaired, and every job ends."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from itertools import count
from typing import Any

import pytest
from redis.asyncio import Redis

from lorapool.shared.queue.fsck import REPAIRS
from lorapool.shared.queue.protocol import ClaimedJob, Finding, JobLease, Settlement
from lorapool.shared.server.keys import Keys
from lorapool.shared.server.terms import Terms
from tests.parts import Queue
from tests.shared.conftest import LEASE_MS, Bench, job

ENDED = {"succeeded", "failed", "cancelled", "expired"}
JOBS = ("dead", "done", "runs", "suspect", "queued", "high", "later", "timed")
REFS = ("ceo@1", "cfo@1")
FAR_MS = 600_000


async def fsck(upkeep: Queue) -> list[Finding]:
    """A whole check."""
    findings: list[Finding] = []
    cursor = ""
    while True:
        step = await upkeep.fsck(cursor)
        findings += step.findings
        cursor = step.cursor
        if not cursor:
            return findings


@pytest.fixture
def upkeep(bench: Bench) -> Queue:
    return Queue(bench.redis, bench.keys.pool, clock=bench.keys.one("clock"))


@pytest.fixture
async def busy(bench: Bench) -> Bench:
    """A partition with a job in every place."""
    await bench.enqueue(id="dead")
    for attempt in range(3):
        await bench.claim(worker=f"gone{attempt}")
        await bench.pass_time(LEASE_MS + 4_000)
    await bench.enqueue("ceo@1", id="done", stream=True, client="c")
    await bench.enqueue("ceo@1", id="runs")
    done, runs = await bench.claim("ceo@1", worker="w1")
    await bench.queue.settle([Settlement(done.job_id, done.lease, "succeeded")])
    await bench.queue.renew([JobLease(runs.job_id, runs.lease)], FAR_MS)
    await bench.enqueue(id="suspect")
    await bench.claim(worker="gone")
    await bench.pass_time(LEASE_MS + 4_000)
    await bench.enqueue(id="queued")
    await bench.enqueue(id="high", priority="high")
    await bench.enqueue(id="later", delay_ms=60_000)
    await bench.enqueue(id="timed", deadline_ms=3_600_000)
    return bench


async def finish_all(bench: Bench) -> None:
    """Workers come by until every job that is still known has ended."""
    await bench.pass_time(FAR_MS + 60_000)
    for _ in range(12):
        claimed = await bench.claim(*REFS, worker="late")
        await bench.queue.settle([Settlement(c.job_id, c.lease, "succeeded") for c in claimed])
    states = {job_id: await bench.state(job_id) for job_id in JOBS}
    assert set(states.values()) <= {*ENDED, ""}, states


def on(key: str, command: str, *args: Any) -> Callable[[Bench], Awaitable[Any]]:
    """A raw command on one key of the partition."""
    return lambda bench: bench.redis.execute_command(command, bench.keys.one(key), *args)


PLANTED = [
    ("entry_without_job", on("job:queued", "UNLINK")),
    ("queued_job_without_entry", on("stream:cfo@1", "UNLINK")),
    ("queued_job_without_entry", on("stream:cfo@1:high", "UNLINK")),
    ("delayed_job_without_due", on("delayed", "ZREM", "later")),
    ("running_job_without_lease", on("leases", "UNLINK")),
    ("suspect_without_place", on("suspects", "UNLINK")),
    ("live_job_with_ttl", on("job:queued", "PEXPIRE", 60_000)),
    ("deadline_unwatched", on("deadlines", "ZREM", "timed")),
    ("payload_missing", on("payload:queued", "UNLINK")),
    ("payload_missing", on("payload:later", "UNLINK")),
    ("payload_missing", on("payload:suspect", "UNLINK")),
    ("ended_job_without_ttl", on("job:done", "PERSIST")),
    ("payload_of_ended_job", on("payload:done", "SET", "x")),
    ("payload_without_ttl", on("payload:dead", "PERSIST")),
    ("payload_without_job", on("payload:ghost", "SET", "x")),
    ("key_without_ttl", on("tokens:done", "PERSIST")),
    ("key_without_ttl", on("inbox:c", "PERSIST")),
    ("stray_in_delayed", on("delayed", "ZADD", 2**42, "ghost")),
    ("stray_in_suspects", on("suspects", "ZADD", 1, "done")),
    ("stray_in_deadlines", on("deadlines", "ZADD", 2**42, "done")),
    ("stray_in_ready", on("ready", "ZADD", 1, "ghost@1")),
    ("stray_in_served", on("served", "ZADD", 1, "ghost@1")),
    ("lease_without_running_job", on("leases", "ZADD", 2**42, "queued")),
    ("stray_entry", on("stream:ceo@1", "XADD", "*", "job", "runs")),
    ("waiting_gauge", on("waiting", "HSET", "cfo@1", 99)),
    ("waiting_gauge", on("waiting", "HSET", "*", 99)),
    ("waiting_gauge", on("waiting", "HSET", "ghost@1", 9)),
    ("waiting_gauge", on("waiting", "UNLINK")),
    ("running_gauge", on("running", "HSET", "cfo@1", 7)),
    ("held_gauge", on("held", "HSET", "ghost", 3)),
    ("window_gauge", on("window:cfo@1", "HSET", "anonymous", 99)),
    ("backlog_not_ready", on("ready", "ZREM", "cfo@1")),
    ("ready_without_backlog", on("ready", "ZADD", 1, "ceo@1")),
    ("served_membership", on("served", "ZREM", "cfo@1")),
]


def test_every_kind_is_planted() -> None:
    """No repair goes untried."""
    assert REPAIRS.keys() == {damage for damage, _ in PLANTED}


async def test_a_healthy_partition_is_clean(busy: Bench, upkeep: Queue) -> None:
    """Nothing to report, with a job in every place."""
    assert ["failed", "succeeded", "running"] == [await busy.state(job_id) for job_id in JOBS[:3]]
    assert [] == await fsck(upkeep)
    await finish_all(busy)
    assert [] == await fsck(upkeep)


@pytest.mark.parametrize(("damage", "plant"), PLANTED)
async def test_damage_is_found_and_repaired(
    busy: Bench, upkeep: Queue, damage: str, plant: Callable[[Bench], Awaitable[Any]]
) -> None:
    """Named, gone at the second look; then all jobs end, and counters only grew by what happened."""
    before = await busy.queue.counters.of_adapter("cfo@1")
    await plant(busy)
    found = await fsck(upkeep)
    assert damage in {finding.damage for finding in found}
    assert [] == await fsck(upkeep)
    if damage != "payload_missing":  # that ends a job, which is counted
        assert before == await busy.queue.counters.of_adapter("cfo@1")
    await finish_all(busy)
    assert [] == await fsck(upkeep)
    left = {key.decode().removeprefix(busy.keys.prefix).partition(":")[0] for key in await busy.redis.keys("*")}
    assert not left & {"stream", "ready", "served", "waiting", "running", "held", "window", "leases", "delayed"}


async def test_all_of_it_lost_at_once(busy: Bench, upkeep: Queue) -> None:
    """With every index gone and only the records left, all jobs still end."""
    for key in await busy.redis.keys("*"):
        name = key.decode().removeprefix(busy.keys.prefix)
        if not name.startswith(("job:", "payload:", "adapter:", "stats:", "agent:", "dead", "clock")):
            await busy.redis.unlink(key)
    assert await fsck(upkeep)
    assert [] == await fsck(upkeep)
    await finish_all(busy)
    assert {"succeeded", "failed"} == {await busy.state(job_id) for job_id in JOBS}


@pytest.mark.parametrize("value", ["junk", "nan", "-nan", "inf", "-inf", "1e300", "-1e300", "0.5", "-7", "0x1p40", ""])
@pytest.mark.parametrize("field", [".", "cfo@1", "ceo@1", "*"])
async def test_a_gauge_that_is_no_count_is_put_right_at_once(
    busy: Bench, upkeep: Queue, field: str, value: str
) -> None:
    """Whatever stands there, one check finds it, the next finds nothing."""
    key = busy.keys.one("waiting")
    sound = await busy.redis.hgetall(key)
    await busy.redis.hset(key, field, value)
    assert ("waiting_gauge", field) in {(finding.damage, finding.subject) for finding in await fsck(upkeep)}
    assert [] == await fsck(upkeep)
    assert sound == await busy.redis.hgetall(key)


async def test_a_lost_request_ends_its_job_with_the_reason(busy: Bench, upkeep: Queue) -> None:
    """Whoever waits for it hears why."""
    await busy.redis.unlink(busy.keys.payload("queued"))
    [finding] = await fsck(upkeep)
    assert Finding("payload_missing", "queued", "failed for good: its request was lost") == finding
    record = await busy.queue.get("queued")
    assert record is not None
    assert ("failed", "PayloadMissing") == (record["state"], record["error"])


class Live:
    """Clients and workers at work on a partition of their own, by the real clock."""

    def __init__(self, redis: Redis) -> None:
        keys, terms = Keys("live"), Terms(backoff_ms=20, agent_window=10_000)
        self.queue, self.upkeep = Queue(redis, keys.pool, terms=terms), Queue(redis, keys.pool, terms=terms)
        self.ids = [f"j{i}" for i in range(400)]

    async def submit(self) -> None:
        for ref in REFS:
            await self.queue.open_adapter(ref, "d")
        for i, job_id in enumerate(self.ids):
            fields = {"delay_ms": i % 7, "deadline_ms": 60_000, "stream": i % 3 == 0}
            await self.queue.enqueue(job(id=job_id, ref=REFS[i % 2], **fields))

    async def work(self, worker: str, draw: random.Random) -> None:
        for turn in count():
            claimed = (await self.queue.claim(worker, f"{worker}.{turn}", REFS, 4, 2, LEASE_MS)).jobs
            for mine in claimed:
                await self.end(mine, draw)
            if not claimed and await self.all_ended():
                return

    async def end(self, mine: ClaimedJob, draw: random.Random) -> None:
        if draw.random() < 0.2:
            await self.queue.release([JobLease(mine.job_id, mine.lease)])
            return
        if draw.random() < 0.1:
            await self.queue.cancel(mine.job_id)
        outcome: Any = draw.choice(("succeeded", "succeeded", "failed", "retry"))
        await self.queue.settle([Settlement(mine.job_id, mine.lease, outcome)])

    async def all_ended(self) -> bool:
        return all(state and state.terminal for state in await self.queue.states(self.ids))


async def test_it_is_harmless_on_a_live_system(redis: Redis) -> None:
    """Check after check while clients and workers are at it: nothing is found, nothing is changed, all jobs end."""
    live = Live(redis)
    work = asyncio.gather(live.submit(), *(live.work(f"w{i}", random.Random(i)) for i in range(3)))
    rounds = 0
    while not work.done():
        assert [] == await fsck(live.upkeep)
        rounds += 1
    await work
    assert rounds > 3
    counted = [await live.queue.counters.of_adapter(ref) for ref in REFS]
    assert len(live.ids) == sum(stats.get(name, 0) for stats in counted for name in ENDED)
    await live.queue.close()
