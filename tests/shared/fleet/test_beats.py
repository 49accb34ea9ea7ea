"""Workers live as long as they beat, and what they count is summed up over all there ever were."""

from __future__ import annotations

import pytest
from redis.asyncio import Redis

from lorapool.shared.fleet.membership import Membership
from tests.parts import membership_of


@pytest.fixture
def members(redis: Redis) -> Membership:
    return membership_of(redis, "test")


async def test_workers_live_as_long_as_they_beat(members: Membership, redis: Redis) -> None:
    """By name, with what each said last and how long ago; who leaves is gone at once."""
    await members.beat("w2", {"device": "cpu", "free_rows": 3}, 5_000)
    await members.beat("w1", {"device": "cuda:0"}, 5_000)
    first, second = await members.all()
    assert ("w1", "cuda:0") == (first["worker"], first["device"])
    assert ("w2", "cpu", "3") == (second["worker"], second["device"], second["free_rows"])
    assert int(first["age_ms"]) < 5_000
    await redis.delete("lp:{test}:worker:w2")  # its TTL passed
    await members.leave("w1")
    assert await members.all() == []
    assert await redis.zrange("lp:{test}:workers", 0, -1) == [b"w2"]  # forgotten with the next beat of any


async def test_usage_sums_what_workers_have_grown_by(members: Membership, redis: Redis) -> None:
    """Totals of all workers and boots add up, each growth once: also when a beat is repeated, and after a silence."""
    count = {"up_ms": 0, "steps": 0}
    await members.beat("w1", {"up_ms": 1_000, "steps": 5}, 5_000, boot="a", counted=count)
    await members.beat("w2", {"up_ms": 300, "steps": 1}, 5_000, boot="z", counted=count)
    await members.beat("w1", {"up_ms": 3_000, "steps": 7}, 5_000, boot="a", counted={"up_ms": 1_000, "steps": 5})
    await members.beat("w1", {"up_ms": 3_500, "steps": 7}, 5_000, boot="a", counted={"up_ms": 1_000, "steps": 5})
    assert (3_800, 8) == ((await members.usage())["up_ms"], (await members.usage())["steps"])
    await redis.delete("lp:{test}:worker:w1")  # silent for longer than its TTL
    await members.beat("w1", {"up_ms": 9_500, "steps": 8}, 5_000, boot="a", counted={"up_ms": 3_500, "steps": 7})
    await members.leave("w1", "a")
    await members.beat("w1", {"up_ms": 200, "steps": 1}, 5_000, boot="b", counted=count)
    assert (10_000, 10) == ((await members.usage())["up_ms"], (await members.usage())["steps"])


async def test_the_pool_is_open_while_any_worker_beats(redis: Redis) -> None:
    """Two workers at once count the time once; of a silence, only as much as the worker that ends it was up."""
    members, server_ms, up_ms = membership_of(redis, "test", clock="clock"), 1_000_000, 0
    beats = ((0, "w1", 300), (1_000, "w2", 500), (1_000, "w1", 1_000), (60_000, "w1", 700), (2_000, "w2", 4_000))
    for passed_ms, worker, grown_ms in beats:
        server_ms += passed_ms
        await redis.set("clock", server_ms)
        await members.beat(worker, {"up_ms": up_ms + grown_ms}, 5_000, boot="a", counted={"up_ms": up_ms})
        up_ms += grown_ms
    usage = await members.usage()
    assert (300 + 2_000 + 700 + 2_000, 999_700, 1_064_000) == (usage["open_ms"], usage["since_ms"], usage["last_ms"])
