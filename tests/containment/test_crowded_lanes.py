"""One agent floods, or leaves a backlog that is past its deadline: the others' jobs of the same adapter are served."""

from __future__ import annotations

import asyncio
import time

from lorapool.producer.client import Client
from lorapool.producer.handle import JobHandle
from lorapool.shared.job import Job
from tests.containment import LONG
from tests.containment.conftest import Contain

TOKENS = 5


async def test_a_crowd_beside_a_low_job(contained: Contain) -> None:
    """While another floods at high priority, a crowd of normal jobs beside one of low priority is served as well, also
    when each was submitted with the least delay."""
    async with contained(workers=2, step_s=0.02, max_batch=4) as pool:
        await pool.adapters("shared")
        await pool.calm(1.0)
        stop = asyncio.Event()
        async with pool.bystanders() as bystanders:
            flood = asyncio.create_task(_flood(pool.client, stop))
            low = await pool.client.submit("shared", "low", priority="low", agent="patient", max_new_tokens=TOKENS)
            crowd = [
                await pool.client.submit("shared", f"n{n}", agent="crowd", delay=0.001 * (n % 2), max_new_tokens=TOKENS)
                for n in range(24)
            ]
            results = await asyncio.gather(*(handle.result(60) for handle in (low, *crowd)))
            await bystanders.served(20)
            stop.set()
            await flood
        bystanders.judge(factor=2.0)
        assert 25 == len(results)


async def _flood(client: Client, stop: asyncio.Event) -> None:
    """Urgent jobs of another agent, as many as its window holds."""
    handles: list[JobHandle] = []
    while not stop.is_set():
        handles.append(
            await client.submit("shared", "now", priority="high", agent="flood", wait=True, max_new_tokens=TOKENS)
        )
        await asyncio.sleep(0.02)
    await asyncio.gather(*(handle.result(60) for handle in handles))


async def test_a_backlog_past_its_deadline(contained: Contain) -> None:
    """Behind thousands of jobs whose deadline has passed, found when the first worker comes, a live one is served
    within seconds."""
    count = 9_000 if LONG else 3_000
    async with contained(workers=1, step_s=0.01) as pool:
        ref = next(iter(await pool.adapters("backlog")))
        broker = pool.client._broker  # enqueued by the thousand, past the windows of agents
        await broker.open_adapter(ref, "", max_depth=count + 10, agent_window=count + 10)
        assert 0 == pool.workers["w1"].stop()
        await pool.left(pool.workers["w1"], 0)
        jobs = [Job.parse(id=f"late{n}", ref=ref, prompt="late", deadline_ms=1_000) for n in range(count)]
        await broker.enqueue_many(jobs)
        await asyncio.sleep(1.0)
        pool.start("w1")
        await pool.ready("w1")
        began_s = time.monotonic()
        await (await pool.client.submit("backlog", "live", max_new_tokens=TOKENS)).result(30)
        took_s = time.monotonic() - began_s
        print(f"behind {count} overdue jobs: {took_s:.2f} s")
        assert took_s < 4.0
