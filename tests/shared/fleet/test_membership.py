"""Who a pool's workers are: what a beat costs, whose a name is, and who is asked."""

from __future__ import annotations

from typing import Any

import pytest
from fakeredis import FakeAsyncRedis
from redis.asyncio import Redis

from lorapool.shared.errors import WorkerIdTaken
from lorapool.shared.fleet.membership import Membership
from tests.parts import membership_of

TTL_MS = 6_000


@pytest.fixture
async def members(redis: Redis) -> Membership:
    await redis.set("clock", 1_000_000)
    return membership_of(redis, "test", clock="clock")


async def commands(redis: Redis) -> dict[str, int]:
    return {name: row["calls"] for name, row in (await redis.info("commandstats")).items()}


async def cost_of_a_beat(redis: Redis, members: Membership) -> dict[str, int]:
    """The commands that one more beat of a known worker makes the server run, those within scripts too."""
    await members.beat("w0", {"state": "running"}, TTL_MS)
    await redis.config_resetstat()
    await members.beat("w0", {"state": "running"}, TTL_MS)
    return await commands(redis)


async def test_a_beat_costs_the_same_in_any_fleet(redis: Redis, members: Membership) -> None:
    """No more commands with three hundred workers than with three, and none that reads another's record."""
    for number in range(3):
        await members.beat(f"w{number}", {"state": "running"}, TTL_MS)
    few = await cost_of_a_beat(redis, members)
    for number in range(300):
        await members.beat(f"w{number}", {"state": "running"}, TTL_MS)
    many = await cost_of_a_beat(redis, members)
    assert 1 == many["cmdstat_evalsha"]
    assert sum(many.values()) <= sum(few.values()) < 20
    assert not {"cmdstat_hgetall", "cmdstat_smembers", "cmdstat_zrange"} & few.keys()


async def test_the_mark_changes_with_who_takes_jobs(redis: Redis, members: Membership) -> None:
    """Another one that comes, drains, leaves or dies changes it; a beat more does not."""

    async def beat(worker: str, **fields: Any) -> str:
        return await members.beat(worker, fields, TTL_MS)

    first = await beat("w1", state="running")
    assert first == await beat("w1", state="running")
    assert first == await beat("w2", state="loading")
    marks = [first, await beat("w2", state="running")]
    assert ["w1", "w2"] == await members.serving()
    marks.append(await beat("w2", state="draining"))
    assert ["w1"] == await members.serving()
    marks.append(await beat("w2", state="running"))
    await members.leave("w2")
    marks.append(await beat("w1", state="running"))
    marks.append(await beat("w2", state="running"))
    await redis.set("clock", 1_000_000 + TTL_MS - 1)
    assert marks[-1] == await beat("w1", state="running")
    await redis.set("clock", 1_000_000 + TTL_MS + 1)  # w2 was silent for too long
    marks.append(await beat("w1", state="running"))
    assert ["w1"] == await members.serving()
    assert len(marks) == len(set(marks))


async def test_a_clock_set_back_leaves_nobody_for_long(redis: Redis, members: Membership) -> None:
    """Who beat before the server's clock was set back by an hour, and died, is no member for that hour."""
    await redis.set("clock", 5_000_000)
    await members.beat("dead", {}, TTL_MS)
    await members.beat("alive", {}, TTL_MS)
    await redis.set("clock", 1_400_000)
    await members.beat("alive", {}, TTL_MS)
    assert ["alive"] == await members.serving() == [beat["worker"] for beat in await members.all()]


async def test_the_set_of_an_older_release_crashes_nothing(redis: Redis, members: Membership) -> None:
    """It is read as nobody, and replaced by the first beat."""
    await redis.sadd("lp:{test}:workers", "old")
    assert [] == await members.all()
    assert "" == await members.liveliest()
    await members.leave("old")
    await redis.sadd("lp:{test}:workers", "old")
    await members.beat("w1", {}, TTL_MS)
    assert ["w1"] == [beat["worker"] for beat in await members.all()]


async def test_membership_vanishes_with_its_members(redis: Redis, members: Membership) -> None:
    """At rest no key of it is left without a time to live."""
    await members.beat("w1", {"state": "running"}, TTL_MS)
    keys = [key async for key in redis.scan_iter("lp:{test}:*")]
    assert {b"lp:{test}:workers", b"lp:{test}:serving", b"lp:{test}:members", b"lp:{test}:worker:w1"} == set(keys)
    assert -1 not in [await redis.ttl(key) for key in keys]


async def test_who_is_asked(redis: Redis) -> None:
    """One that beat last, rather one that takes jobs, never one that is gone."""
    members = membership_of(redis, "test")
    assert "" == await members.liveliest()
    await members.beat("w1", {"state": "loading"}, TTL_MS)
    assert "w1" == await members.liveliest()
    await members.beat("w2", {"state": "running"}, 2 * TTL_MS)
    await members.beat("w1", {"state": "loading"}, 3 * TTL_MS)
    assert "w2" == await members.liveliest()
    await members.leave("w2")
    assert "w1" == await members.liveliest()
    await redis.zadd("lp:{test}:workers", {"w1": 1})
    assert "" == await members.liveliest()


async def test_a_name_is_one_boots(members: Membership) -> None:
    """The second that joins hears who has it; a beat of one that lost it is refused, its leaving leaves the other."""
    identity = {"host": "a", "pid": 7, "place": "p"}
    assert await members.join("w1", identity, TTL_MS, boot="one") is None
    assert await members.join("w1", identity, TTL_MS, boot="one") is None  # its reply was lost
    holder = await members.join("w1", {"host": "b", "pid": 9}, TTL_MS, boot="two")
    assert holder is not None
    assert ("one", "a", "7", "p", TTL_MS) == (holder.boot, holder.host, holder.pid, holder.place, holder.ttl_ms)
    assert await members.join("w1", {"host": "b", "pid": 9}, TTL_MS, boot="two", displace="one") is None
    with pytest.raises(WorkerIdTaken, match="'w1' was taken by process 9 on host b"):
        await members.beat("w1", identity, TTL_MS, boot="one")
    await members.leave("w1", "one")
    [record] = await members.all()
    assert ("two", "b") == (record["boot"], record["host"])
    assert "place" not in record
    await members.leave("w1", "two")
    assert [] == await members.all()


async def test_a_worker_that_joined_is_there_and_takes_no_jobs(members: Membership) -> None:
    await members.join("w1", {"state": "loading", "progress": "40 %"}, TTL_MS, boot="one")
    [record] = await members.all()
    assert ("loading", "40 %") == (record["state"], record["progress"])
    assert [] == await members.serving()


async def test_it_works_on_the_fake_server() -> None:
    """The scripts run where tests have no server."""
    members = membership_of(FakeAsyncRedis(), "test")
    assert await members.join("w1", {"state": "loading"}, TTL_MS, boot="one") is None
    assert await members.beat("w1", {"state": "running"}, TTL_MS, boot="one", counted={})
    assert ["w1"] == await members.serving()
    await members.leave("w1", "one")
    assert [] == await members.all()
