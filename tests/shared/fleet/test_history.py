"""History: one entry a minute, whoever writes, for a day."""

from __future__ import annotations

from lorapool.shared.connection import PoolConnection
from lorapool.shared.fleet.history import MINUTE_MS, History, Minute

START_MS = 1_800_000_000_000
CLOCK = "lp:{test}:clock"


def history_of(redis) -> History:
    return History(PoolConnection(redis, "test", clock=CLOCK))


async def test_the_first_in_a_minute_writes_it(redis):
    """Two replicas in one minute leave one entry, the first one's; the next minute has its own."""
    await redis.set(CLOCK, START_MS + 1)
    history = history_of(redis)
    assert [True, False] == [await history.note({"done": 5}), await history_of(redis).note({"done": 9})]
    await redis.set(CLOCK, START_MS + MINUTE_MS)
    assert await history.note({"done": 7.5})
    assert [
        Minute(START_MS, START_MS + 1, {"done": 5}),
        Minute(START_MS + MINUTE_MS, START_MS + MINUTE_MS, {"done": 7.5}),
    ] == await history.minutes()


async def test_it_is_bounded(redis):
    """A day's minutes are kept, and the key vanishes a day after the last."""
    await redis.set(CLOCK, START_MS)
    history = history_of(redis)
    for minute in range(1450):
        await redis.set(CLOCK, START_MS + minute * MINUTE_MS)
        await history.note({"done": minute})
    assert 1440 == await redis.xlen("lp:{test}:history")
    assert 0 < await redis.pttl("lp:{test}:history") <= 86_400_000
    assert [1447, 1448, 1449] == [minute.totals["done"] for minute in await history.minutes(3)]


async def test_a_clock_set_back_begins_anew(redis):
    """Entries of a future that has not come are dropped, so that none is waited for."""
    await redis.set(CLOCK, START_MS + 10 * MINUTE_MS)
    history = history_of(redis)
    await history.note({"done": 9})
    await redis.set(CLOCK, START_MS)
    assert await history.note({"done": 1})
    assert [START_MS] == [minute.minute_ms for minute in await history.minutes()]


async def test_what_is_no_minute_is_stepped_over(redis):
    """An entry that lorapool does not write hides no other."""
    await redis.xadd("lp:{test}:history", {"stray": "x"}, id=f"{START_MS - MINUTE_MS}-0")
    await redis.set(CLOCK, START_MS)
    history = history_of(redis)
    await history.note({"done": 1})
    assert [{"done": 1}] == [minute.totals for minute in await history.minutes()]


async def test_whether_a_minute_is_due(redis):
    """Before this minute was written, and not after; by the server's own clock."""
    history = History(PoolConnection(redis, "test"))
    assert await history.due()
    await history.note({})
    [newest] = await history.minutes(1)
    due, now_s = await history.due(), (await redis.time())[0]
    assert (now_s * 1000 - newest.minute_ms >= MINUTE_MS) == due
