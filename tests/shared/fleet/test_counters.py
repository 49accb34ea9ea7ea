"""What is counted beside jobs: adapters loaded, requests refused; and what waits and runs right now."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from redis.asyncio import Redis

from lorapool.shared.queue.protocol import Backlog
from tests.parts import Queue
from tests.shared.conftest import job


@pytest.fixture
async def queue(redis: Redis) -> AsyncIterator[Queue]:
    queue = Queue(redis, "default")
    await queue.open_adapter("cfo@1", "ab")
    yield queue
    await queue.close()


async def test_a_report_of_loads_counts_once(queue: Queue) -> None:
    """Sent again after a lost reply it changes nothing; the next one adds up."""
    for report in ("r-0", "r-0", "r-1"):
        await queue.counters.add_loads("w1", report, {"cfo@1": 2})
    assert 4 == (await queue.counters.of_adapter("cfo@1"))["loads"]


async def test_refusals_are_counted_by_reason(queue: Queue) -> None:
    """From several clients, each report once."""
    for client, report in (("c1", "r-0"), ("c1", "r-0"), ("c2", "r-0")):
        await queue.counters.add_refusals(client, report, {"UnknownAdapter": 1, "InvalidRequest": 2})
    assert {"UnknownAdapter": 2, "InvalidRequest": 4} == await queue.counters.refusals()


async def test_the_backlog_is_what_waits_and_runs(queue: Queue) -> None:
    """By adapter, with the longest wait; and an adapter knows when it was last claimed."""
    assert Backlog({}, {}, None) == await queue.backlog()
    await queue.enqueue_many([job(id=f"job{n}") for n in range(3)])
    assert "claimed_ms" not in await queue.adapter("cfo@1")
    [claimed] = (await queue.claim("w1", "L", ["cfo@1"], 1, 1, 15_000)).jobs
    backlog = await queue.backlog()
    assert ({"cfo@1": 2}, {"cfo@1": 1}) == (backlog.waiting, backlog.running)
    assert backlog.oldest_wait_ms is not None
    assert 0 <= backlog.oldest_wait_ms < 60_000
    assert claimed.claimed_ms == int((await queue.adapter("cfo@1"))["claimed_ms"])
