"""The book of chores on a real server: whose tick is whose."""

from __future__ import annotations

import asyncio

import pytest
from redis.asyncio import Redis

from lorapool.shared.connection import PoolConnection
from lorapool.shared.timetable.chores import ChoreBook
from tests.parts import membership_of


@pytest.fixture
def book(redis: Redis) -> ChoreBook:
    return ChoreBook(PoolConnection(redis, "test"))


async def test_a_tick_is_begun_once(book: ChoreBook):
    """By one of all who would; the next tick again by one."""
    for tick_ms in (1000, 2000):
        begun = await asyncio.gather(*(book.begin("fsck", tick_ms, f"m{n}") for n in range(20)))
        assert 1 == sum(begun)
        await book.end("fsck", {})


async def test_a_tick_is_not_begun_while_another_is_under_way(redis: Redis):
    """Slow chores do not pile up; one whose worker died holds up the next for 15 seconds."""
    await redis.set("lp:{test}:clock", 1_000_000)
    book = ChoreBook(PoolConnection(redis, "test", clock="lp:{test}:clock"))
    assert await book.begin("fsck", 1000, "m1")
    await redis.set("lp:{test}:clock", 1_014_999)
    assert not await book.begin("fsck", 2000, "m2")
    assert await book.begin("schedule", 2000, "m2")
    await redis.set("lp:{test}:clock", 1_015_000)
    assert await book.begin("fsck", 3000, "m2")
    await book.end("fsck", {})
    assert await book.begin("fsck", 4000, "m1")


async def test_a_tick_is_not_begun_after_a_later_one(book: ChoreBook):
    """A worker that comes late with an old tick does nothing; another chore is another matter."""
    assert await book.begin("fsck", 2000, "m1")
    await book.end("fsck", {})
    assert not await book.begin("fsck", 1000, "m2")
    assert await book.begin("schedule", 1000, "m2")


async def test_a_host_whose_clock_is_ahead_silences_nobody(redis: Redis):
    """Its tick is of the future and nobody's; had an older release begun it, the others' go on."""
    await redis.set("lp:{test}:clock", 1_000_000)
    book = ChoreBook(PoolConnection(redis, "test", clock="lp:{test}:clock"))
    assert not await book.begin("fsck", 1_000_000 + 3_600_000, "ahead")
    assert await book.begin("fsck", 1_000_000, "m1")
    await book.end("fsck", {})
    await redis.hset("lp:{test}:chores", "fsck.tick_ms", 1_000_000 + 3_600_000)
    assert await book.begin("fsck", 1_000_000, "m1")
    await book.end("fsck", {})
    assert not await book.begin("fsck", 1_000_000, "m2")


async def test_a_server_whose_clock_was_set_back_goes_on(redis: Redis):
    """What was begun or under way before, an hour ahead by now, holds up nothing."""
    await redis.set("lp:{test}:clock", 10_000_000)
    book = ChoreBook(PoolConnection(redis, "test", clock="lp:{test}:clock"))
    assert await book.begin("fsck", 10_000_000, "m1")
    await redis.set("lp:{test}:clock", 6_400_000)
    assert await book.begin("fsck", 6_400_000, "m2")
    assert not await book.begin("fsck", 6_400_000, "m1")
    await book.end("fsck", {})
    assert await book.begin("fsck", 6_401_000, "m1")


async def test_the_book_says_who_did_what(book: ChoreBook):
    """redis-cli HGETALL 'lp:{<pool>}:chores'."""
    await book.begin("fsck", 2000, "m1")
    await book.end("fsck", {"found": 3})
    found = await book.read()
    assert ("m1", "3", "2000") == (found["fsck.worker"], found["fsck.found"], found["fsck.tick_ms"])


async def test_who_beats_no_more_is_named(book: ChoreBook, redis: Redis):
    """A worker that was seen once, until it is forgotten."""
    members = membership_of(redis, "test")
    await members.beat("w1", {}, 60_000)
    assert [] == await book.see(["w1"])
    await members.leave("w1")
    assert ["w1"] == await book.see([])
    await book.forget("w1")
    assert [] == await book.see([])


async def test_a_digest_takes_the_place_of_the_one_before(book: ChoreBook, redis: Redis):
    await book.write_dead({"total": 2, "reason:Poisonous": 2})
    await book.write_dead({"total": 0})
    assert {b"total": b"0"} == await redis.hgetall("lp:{test}:dead")
    assert await redis.ttl("lp:{test}:dead") > 0
