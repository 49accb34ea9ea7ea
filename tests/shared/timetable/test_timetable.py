"""The timetable on a real server: stored once, due at its time, each run recorded once."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from redis.asyncio import Redis

from lorapool.shared.connection import PoolConnection
from lorapool.shared.errors import InvalidRequest, ScheduleConflict, UnknownSchedule
from lorapool.shared.timetable.schedule import Schedule
from lorapool.shared.timetable.timetable import Timetable

NOW = 1_800_000_000_000
CLOCK = "lp:{test}:clock"
KEY = "lp:{test}:schedule:morning"


@pytest.fixture
async def timetable(redis: Redis) -> Timetable:
    await redis.set(CLOCK, NOW)
    return Timetable(PoolConnection(redis, "test", clock=CLOCK))


def entry(**fields: Any) -> Schedule:
    return Schedule.parse(**{"name": "morning", "cron": "0 8 * * *", "adapter": "cfo", "prompt": "hi", **fields})


async def test_an_entry_comes_back_as_it_went(timetable: Timetable):
    """Chat and sampling params too; with its creation and next run."""
    sent = entry(
        prompt=None, messages=[{"role": "user", "content": "é\n"}], params={"stop": ["x"], "seed": 0}, tz="UTC"
    )
    stored = await timetable.add(sent, NOW + 5)
    assert sent.model_copy(update={"created_ms": NOW, "next_ms": NOW + 5}) == stored == await timetable.get("morning")


async def test_an_entry_is_plain_to_read(timetable: Timetable, redis: Redis):
    """redis-cli HGETALL says when, whom and what."""
    await timetable.add(entry(params={"top_k": 3}), NOW + 5)
    expected = {"cron": "0 8 * * *", "tz": "UTC", "adapter": "cfo", "prompt": "hi", "params": '{"top_k": 3}', "v": "1"}
    found = {name.decode(): value.decode() for name, value in (await redis.hgetall(KEY)).items()}
    assert expected == {name: found[name] for name in expected}


async def test_the_same_again_is_the_same_entry(timetable: Timetable):
    """Whatever became of it meanwhile; another under its name is refused."""
    first = await timetable.add(entry(), NOW)
    await timetable.ran(first, NOW + 9, run_ms=NOW, job_id="0.x")
    assert (NOW + 9, 1) == ((again := await timetable.add(entry(), NOW + 1)).next_ms, again.runs)
    with pytest.raises(ScheduleConflict, match="morning"):
        await timetable.add(entry(prompt="ho"), NOW)


async def test_due_are_those_whose_time_has_come(timetable: Timetable):
    """The longest due first."""
    for name, at_ms in (("b", NOW), ("a", NOW - 1), ("later", NOW + 1)):
        await timetable.add(entry(name=name), at_ms)
    now_ms, entries, damaged = await timetable.due()
    assert (NOW, ["a", "b"], {}) == (now_ms, [found.name for found in entries], damaged)
    assert ["a", "b", "later"] == [found.name for found in await timetable.list()]


async def test_a_run_is_recorded_once(timetable: Timetable):
    """However many saw it due: one record counts, the rest find that it has moved on."""
    seen = await timetable.add(entry(), NOW)
    records = (timetable.ran(seen, NOW + 9, run_ms=NOW, job_id="0.x", missed=2) for _ in range(20))
    assert 1 == sum(await asyncio.gather(*records))
    after = await timetable.get("morning")
    assert (NOW + 9, 1, 2, NOW, "0.x") == (after.next_ms, after.runs, after.missed, after.last_due_ms, after.last_job)


async def test_a_removed_entry_is_not_brought_back(timetable: Timetable, redis: Redis):
    """Neither by a record of its last run nor by a refusal; nothing is left of it."""
    seen = await timetable.add(entry(), NOW)
    await timetable.remove("morning")
    assert not await timetable.ran(seen, NOW + 9, run_ms=NOW, job_id="0.x")
    assert not await timetable.refused(seen, "full")
    assert [CLOCK.encode()] == await redis.keys("*")
    for call in (timetable.get, timetable.remove):
        with pytest.raises(UnknownSchedule, match="morning"):
            await call("morning")


async def test_an_entry_that_is_over_is_kept_for_a_day(timetable: Timetable, redis: Redis):
    """To show its last run; then it is forgotten, and its name is free before that."""
    seen = await timetable.add(entry(cron="", at_ms=NOW + 1), NOW)
    await timetable.ran(seen, None, run_ms=NOW, job_id="0.x")
    assert 0 < await redis.pttl(KEY) <= 24 * 3_600_000
    [over] = await timetable.list()
    assert (None, "0.x") == (over.next_ms, over.last_job)
    assert "ho" == (await timetable.add(entry(prompt="ho"), NOW + 5)).prompt
    assert -1 == await redis.ttl(KEY)
    await redis.delete(KEY)  # as expired
    assert [] == await timetable.list()
    assert 0 == await redis.exists("lp:{test}:schedules")


async def test_a_damaged_entry_harms_no_other(timetable: Timetable, redis: Redis):
    """It is named; the others are due."""
    for name in ("a", "b", "c"):
        await timetable.add(entry(name=name), NOW)
    await redis.hset("lp:{test}:schedule:a", "params", "{")
    await redis.hset("lp:{test}:schedule:b", "cron", "x" * 999)
    _, entries, damaged = await timetable.due()
    assert (["c"], {"a", "b"}) == ([found.name for found in entries], set(damaged))
    assert all(isinstance(error, InvalidRequest) for error in damaged.values())


async def test_fields_of_a_newer_release_are_ignored(timetable: Timetable, redis: Redis):
    """In the entry and in its params."""
    await timetable.add(entry(), NOW)
    await redis.hset(KEY, mapping={"colour": "blue", "params": '{"top_k": 3, "mood": 1}'})
    found = await timetable.get("morning")
    assert (3, "hi") == (found.params.top_k, found.prompt)


@pytest.mark.parametrize("name", ["../x", "a b", ""])
async def test_a_name_from_outside_becomes_no_other_key(timetable: Timetable, name: str):
    for call in (timetable.get, timetable.remove):
        with pytest.raises(InvalidRequest):
            await call(name)
