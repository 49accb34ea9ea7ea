"""Runs of the timetable become jobs, each once: whoever makes them, whenever they are cut off."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from redis.asyncio import Redis

from lorapool.shared.codec import decode_job
from lorapool.shared.connection import PoolConnection
from lorapool.shared.errors import RedisUnreachable
from lorapool.shared.timetable.schedule import Schedule, moment_ms
from lorapool.shared.timetable.timetable import Timetable
from lorapool.worker.maintenance.due_runs import DueRuns, RunCounts
from tests.fleet import add_adapters
from tests.parts import Queue, catalog_of

CLOCK = "lp:{default}:clock"
EIGHT = moment_ms("2026-12-01T08:00", "UTC")
DAY_MS = 86_400_000
FIRST_ID, SECOND_ID = "at-20261201T080000Z-morning", "at-20261202T080000Z-morning"


class Forgetful(Timetable):
    """Dies before it records a run."""

    async def ran(self, *_args: Any, **_more: Any) -> bool:
        raise RedisUnreachable("killed here")


class Bench:
    """A pool with two adapters and an entry that is due each day at eight."""

    def __init__(self, redis: Redis) -> None:
        self.redis = redis
        self.timetable = Timetable(PoolConnection(redis, "default", clock=CLOCK))
        self.catalog, self.queue = catalog_of(redis, "default"), Queue(redis, "default")

    def due_runs(self, timetable: Timetable | None = None) -> DueRuns:
        return DueRuns(timetable or self.timetable, self.catalog, lambda _: self.queue)

    async def add(self, next_ms: int = EIGHT, **fields: Any) -> None:
        morning = {"name": "morning", "cron": "0 8 * * *", "adapter": "a", "prompt": "hi"}
        await self.timetable.add(Schedule.parse(**morning | fields), next_ms)

    async def make(self, now_ms: int) -> RunCounts:
        await self.redis.set(CLOCK, now_ms)
        return await self.due_runs().make()

    async def jobs(self) -> list[str]:
        keys = [key.decode() async for key in self.redis.scan_iter("lp:{default/0}:job:*")]
        return sorted(key.rpartition(":")[2] for key in keys)

    async def entry(self) -> Schedule:
        return await self.timetable.get("morning")


@pytest.fixture
async def bench(redis: Redis) -> AsyncIterator[Bench]:
    bench = Bench(redis)
    await add_adapters(redis, "a", "b")
    yield bench
    await bench.queue.close()


async def test_a_due_run_becomes_an_ordinary_job(bench: Bench):
    """As submitted: adapter, agent, prompt, params, deadline; and the entry says which job it was."""
    await bench.add(agent="board", params={"top_k": 3}, deadline_ms=60_000, priority="high")
    assert RunCounts(runs=1) == await bench.make(EIGHT + 3000)
    job = decode_job(await bench.redis.get(f"lp:{{default/0}}:payload:{FIRST_ID}"))
    assert ("a@1", "board", "hi", 3, 60_000, "high") == (
        job.ref, job.agent, job.prompt, job.params.top_k, job.deadline_ms, job.priority
    )  # fmt: skip
    entry = await bench.entry()
    assert (f"0.{FIRST_ID}", EIGHT, EIGHT + DAY_MS, 1) == (
        entry.last_job, entry.last_due_ms, entry.next_ms, entry.runs
    )  # fmt: skip


async def test_nothing_is_made_before_its_time_or_again(bench: Bench):
    await bench.add()
    assert [RunCounts(), RunCounts(runs=1), RunCounts()] == [await bench.make(EIGHT + ms) for ms in (-1, 0, 5000)]
    assert [FIRST_ID] == await bench.jobs()


async def test_any_number_of_workers_make_a_run_once(bench: Bench):
    """Ten that look at the same moment, two days in a row: two jobs, two runs on record."""
    await bench.add()
    for day in range(2):
        await bench.redis.set(CLOCK, EIGHT + day * DAY_MS)
        made = await asyncio.gather(*(bench.due_runs().make() for _ in range(10)))
        assert 1 == sum(one.runs for one in made)
    assert [FIRST_ID, SECOND_ID] == await bench.jobs()
    assert 2 == (await bench.entry()).runs
    assert 2 == (await bench.queue.counters.of_adapter("a@1"))["submitted"]


async def test_a_crash_before_the_record_makes_no_second_job(bench: Bench):
    """The run is enqueued, its maker dies; the next one finds the job and records it."""
    await bench.add()
    await bench.redis.set(CLOCK, EIGHT)
    with pytest.raises(RedisUnreachable):
        await bench.due_runs(Forgetful(PoolConnection(bench.redis, "default", clock=CLOCK))).make()
    assert (await bench.entry()).runs == 0
    assert RunCounts(runs=1) == await bench.make(EIGHT + 5000)
    assert [FIRST_ID] == await bench.jobs()


async def test_a_crash_and_an_alias_that_moves_make_no_second_job(bench: Bench):
    """The name means another version at the second try: the first try's job stands."""
    await bench.catalog.alias("money", "a@1")
    await bench.add(adapter="money")
    await bench.redis.set(CLOCK, EIGHT)
    with pytest.raises(RedisUnreachable):
        await bench.due_runs(Forgetful(PoolConnection(bench.redis, "default", clock=CLOCK))).make()
    await bench.catalog.alias("money", "b@1")
    assert RunCounts(runs=1) == await bench.make(EIGHT + 5000)
    assert [FIRST_ID] == await bench.jobs()
    assert f"0.{FIRST_ID}" == (await bench.entry()).last_job


async def test_the_adapter_is_looked_up_at_each_run(bench: Bench):
    """An alias may move between two runs."""
    await bench.catalog.alias("money", "a@1")
    await bench.add(adapter="money")
    await bench.make(EIGHT)
    await bench.catalog.alias("money", "b@1")
    await bench.make(EIGHT + DAY_MS)
    refs = [(await bench.queue.get(job_id))["ref"] for job_id in (FIRST_ID, SECOND_ID)]
    assert ["a@1", "b@1"] == refs


async def test_after_a_standstill_one_run_is_made(bench: Bench):
    """Three days away: the latest run, if it is not too late; the others are missed, and counted."""
    await bench.add()
    assert RunCounts(runs=1, missed=2) == await bench.make(EIGHT + 2 * DAY_MS + 5000)
    assert ["at-20261203T080000Z-morning"] == await bench.jobs()
    assert 2 == (await bench.entry()).missed


async def test_a_run_too_late_is_not_made(bench: Bench):
    """The entry goes on with the next day."""
    await bench.add()
    assert RunCounts(missed=1) == await bench.make(EIGHT + DAY_MS // 2)
    assert [] == await bench.jobs()
    assert RunCounts(runs=1) == await bench.make(EIGHT + DAY_MS)


async def test_a_refused_run_is_made_when_there_is_room(bench: Bench):
    """A full queue delays it; the entry says why until it is made."""
    await bench.add()
    await bench.add(name="second")
    await bench.queue.open_adapter("a@1", (await bench.catalog.get("a@1")).digest, max_depth=1)
    assert RunCounts(runs=1, refused=1) == await bench.make(EIGHT)
    waiting = next(entry for entry in await bench.timetable.list() if not entry.runs)
    assert "QueueFull" in waiting.last_error
    await bench.queue.cancel((await bench.jobs())[0])
    assert RunCounts(runs=1) == await bench.make(EIGHT + 60_000)
    assert ["", ""] == [entry.last_error for entry in await bench.timetable.list()]
    assert 2 == len(await bench.jobs())


async def test_an_adapter_that_never_comes_is_missed(bench: Bench):
    """Refused until it is too late, then left out; the others are made meanwhile."""
    await bench.add(adapter="ghost")
    await bench.add(name="other")
    assert RunCounts(runs=1, refused=1) == await bench.make(EIGHT)
    assert "UnknownAdapter" in (await bench.entry()).last_error
    assert RunCounts(missed=1) == await bench.make(EIGHT + DAY_MS // 2)
    assert EIGHT + DAY_MS == (await bench.entry()).next_ms


async def test_an_entry_of_a_newer_release_waits_for_a_newer_worker(bench: Bench):
    """It is refused with the reason, and stays due."""
    await bench.add()
    await bench.redis.hset("lp:{default}:schedule:morning", "v", 3)
    assert RunCounts(refused=1) == await bench.make(EIGHT)
    entry = await bench.entry()
    assert ("schema version 3" in entry.last_error, EIGHT) == (True, entry.next_ms)
    assert [] == await bench.jobs()


async def test_a_stored_expression_that_is_none_is_refused(bench: Bench):
    """Somebody wrote into the hash; nothing else suffers."""
    await bench.add()
    await bench.add(name="other")
    await bench.redis.hset("lp:{default}:schedule:morning", "cron", "every day")
    assert RunCounts(runs=1, refused=1) == await bench.make(EIGHT)
