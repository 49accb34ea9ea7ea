"""One agent floods, or leaves a backlog that is past its deadline: the others' jobs of the same adapter are served."""

from __future__ import annotations

import asyncio
import time
from typing import Any

from lorapool.producer.client.client import Client
from lorapool.shared.job import Job
from tests.containment.conftest import Contain
from tests.machine import Meanwhile

TOKENS = 5
SERVED_S = 25.0  # what never gets its turn waits for thirty seconds, or five minutes


async def test_a_crowd_beside_a_low_job(contained: Contain) -> None:
    """While one agent floods at high priority, each job with the least delay, and many others ask for more than there
    is room for, a crowd of normal jobs beside a low one is served within seconds; that one once they stop."""
    async with contained(workers=2, step_s=0.02, max_batch=4) as pool:
        await pool.adapters("shared")
        await pool.calm(1.0)
        async with pool.bystanders() as bystanders:
            stop = asyncio.Event()
            asking = [_flood(pool.client, stop, "flood", priority="high", delay=0.001) for _ in range(40)]
            asking += [_flood(pool.client, stop, f"many-{n % 10}") for n in range(40)]
            flood = asyncio.gather(*asking)
            await bystanders.served(20)
            low = await pool.client.submit("shared", "low", priority="low", agent="patient", max_new_tokens=TOKENS)
            crowd = [
                await pool.client.submit("shared", f"n{n}", agent="crowd", delay=0.001 * (n % 2), max_new_tokens=TOKENS)
                for n in range(24)
            ]
            try:
                await asyncio.gather(*(handle.result(SERVED_S) for handle in crowd))
            finally:
                stop.set()
                await flood
            await low.result(60)
        bystanders.judge(factor=4.0, slack_s=3.0)  # no row is ever free


async def _flood(client: Client, stop: asyncio.Event, agent: str, **options: Any) -> None:
    """One job after the other."""
    while not stop.is_set():
        job = await client.submit("shared", "now", agent=agent, max_new_tokens=TOKENS, wait=True, **options)
        await job.result(60)


async def test_a_backlog_past_its_deadline(contained: Contain) -> None:
    """Behind thousands of jobs whose deadline has passed, found when the first worker comes, a live one is served
    within seconds."""
    count = 9_000
    async with contained(workers=1, step_s=0.01) as pool:
        ref = next(iter(await pool.adapters("backlog")))
        queue = pool.client._queue  # enqueued by the thousand, past the windows of agents
        await pool.client._operators.open_adapter(ref, "", max_depth=count + 10, agent_window=count + 10)
        assert 0 == pool.workers["w1"].stop()
        await pool.left(pool.workers["w1"], 0)
        jobs = [Job.parse(id=f"late{n}", ref=ref, prompt="late", deadline_ms=1_000) for n in range(count)]
        await queue.enqueue_many(jobs)
        await asyncio.sleep(1.0)
        pool.start("w1")
        await pool.ready("w1")
        began_s, meanwhile = time.monotonic(), Meanwhile()
        await (await pool.client.submit("backlog", "live", max_new_tokens=TOKENS)).result(120)
        took_s = time.monotonic() - began_s
        print(f"behind {count} overdue jobs: {took_s:.2f} s")
        assert took_s < 4.0 * meanwhile.slowdown()
