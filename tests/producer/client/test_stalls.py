"""A call of thousands of jobs leaves the caller's event loop free: other tasks get their turn all along."""

from __future__ import annotations

import asyncio
import gc
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from lorapool.producer import Client, JobHandle, QueueFull, Result, ResultTimeout
from tests.producer.canned_worker import serving

JOBS = 5_000
TURN_S = 0.05  # of this thread's own processor time, so that a busy machine does not count


@asynccontextmanager
async def turns() -> AsyncIterator[list[float]]:
    """How long everybody else kept the loop between two turns of ours, in seconds of work.

    Without the collection of garbage: a full one stops everything for as long as all objects of the process take.
    """
    kept: list[float] = []
    gc.collect()
    gc.disable()

    async def tick() -> None:
        last = time.thread_time()
        while True:
            await asyncio.sleep(0)
            now = time.thread_time()
            kept.append(now - last)
            last = now

    ticking = asyncio.create_task(tick())
    await asyncio.sleep(0)
    try:
        yield kept
        await asyncio.sleep(0.01)
    finally:
        ticking.cancel()
        gc.enable()


def asked(agents: int = JOBS) -> list[dict[str, Any]]:
    return [
        {"adapter": None, "prompt": f"job {n}", "agent": f"a{n % agents}", "max_new_tokens": 4} for n in range(JOBS)
    ]


async def test_sending_waiting_and_giving_up(client: Client) -> None:
    """All are accepted, in their order, and none ends in time."""
    async with turns() as kept:
        jobs = await client.submit_many(asked())
        outcomes = await client.gather(jobs, timeout=0.1)  # type: ignore[arg-type]  # they are handles, as seen below
    assert [JobHandle] * JOBS == [type(job) for job in jobs]
    assert [job.id for job in jobs if isinstance(job, JobHandle)] == [
        getattr(error, "job_id", "") for error in outcomes
    ]
    assert {ResultTimeout} == {type(outcome) for outcome in outcomes}
    assert max(kept) < TURN_S


async def test_hearing_of_their_ends(redis_url: str, pool_name: str, client: Client) -> None:
    """All answers come, in their order, while a worker answers as fast as it can in this very loop."""
    async with serving(redis_url, pool_name), turns() as kept:
        answers = await client.gather(asked()[:1_500], timeout=60)
    assert [f"_base heard: job {n}" for n in range(1_500)] == [a.text for a in answers if isinstance(a, Result)]
    assert max(kept) < 4 * TURN_S, "the worker's share is its own"


async def test_being_refused(client: Client) -> None:
    """One agent's window takes 64 of them."""
    async with turns() as kept:
        outcomes = await client.submit_many(asked(agents=1))
    assert [JobHandle] * 64 + [QueueFull] * (JOBS - 64) == [type(outcome) for outcome in outcomes]
    assert max(kept) < TURN_S


async def test_a_full_window_is_not_asked_for_each_job_again(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    """While many jobs of one agent wait for room, those of another that has room are not sent any later."""
    sent = []
    enqueue_many = client._queue.enqueue_many

    async def counted(jobs: Any) -> Any:
        sent.append(len(jobs))
        return await enqueue_many(jobs)

    monkeypatch.setattr(client._queue, "enqueue_many", counted)
    outcomes = await client.gather(asked(agents=2)[:1024], timeout=3)
    assert {ResultTimeout, QueueFull} == {type(outcome) for outcome in outcomes}
    assert 128 == sum(isinstance(outcome, ResultTimeout) for outcome in outcomes)
    assert [512, 512] == sent[:2]
    assert {512} == set(sent[2:]), "a batch each time that room is looked for"
    assert len(sent) <= 2 + 30
