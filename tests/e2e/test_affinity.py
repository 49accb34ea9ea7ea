"""What claiming by affinity saves: two worker processes over a fake model, told to claim in different ways.

The brief form of what test_parity.py claims of the real model.
"""

from __future__ import annotations

import asyncio
import signal
from typing import Any

from redis.asyncio import Redis

from lorapool.producer.client.client import Client
from lorapool.producer.client.handle import JobHandle
from lorapool.shared.job import Result
from tests.fake_model import expected
from tests.fleet import WorkerProcess, add_adapters, alive, fake_worker, until

NAMES = ("ceo", "cfo", "cmo", "coo", "cto")
WAVES, TOKENS = 4, 8
LIMITS: dict[str, Any] = {"slots": 2, "max_batch": 16, "starvation_s": 60.0}
# All five adapters twice and two base rows: no adapter is asked again before two others were.
WAVE = (*NAMES, None, *NAMES, None)


async def _asked(pool: Client, worker: WorkerProcess) -> list[Result]:
    """The waves' answers; the worker finds each wave waiting as a whole."""
    answers: list[Result] = []
    for wave in range(WAVES):
        handles: list[JobHandle] = []
        worker.signal(signal.SIGSTOP)
        for number, name in enumerate(WAVE):
            handles.append(await pool.submit(name, f"question {wave} {number}", max_new_tokens=TOKENS))
            await asyncio.sleep(0.003)  # each at a time of its own
        worker.signal(signal.SIGCONT)
        answers += [await handle.result(100) for handle in handles]
    return answers


async def _run(redis: Redis, url: str, policy: str) -> tuple[int, list[tuple[int, ...]]]:
    """How many adapters were loaded, and the answers."""
    await redis.flushall()
    digests = await add_adapters(redis, *NAMES)
    asked = [(f"question {wave} {number}", name) for wave in range(WAVES) for number, name in enumerate(WAVE)]
    async with Client(url) as pool:
        with fake_worker(url, policy, {"step_s": 0.005}, claim_policy=policy, **LIMITS) as worker:
            await alive(redis, policy)
            answers = [result.token_ids for result in await _asked(pool, worker)]
            loads = await until(lambda: _loads(redis, policy, at_least=len(NAMES)))
            assert worker.stop() == 0
    assert answers == [expected(prompt, digests.get(f"{name}@1", ""), TOKENS) for prompt, name in asked]
    return loads, answers


async def _loads(redis: Redis, name: str, at_least: int) -> int:
    """As its heartbeat has it, once nothing was added between two beats."""
    before = int((await alive(redis, name))["adapter_loads"])
    await asyncio.sleep(0.3)
    after = int((await alive(redis, name))["adapter_loads"])
    return after if before == after >= at_least else 0


async def test_affinity_halves_the_loads(redis_url: str, redis: Redis) -> None:
    """Claiming by affinity loads adapters at most half as often as claiming in order of arrival, same answers."""
    loads, answers = await _run(redis, redis_url, "affinity")
    arrival, again = await _run(redis, redis_url, "arrival")
    print(f"adapter loads: {loads} by affinity, {arrival} in order of arrival")
    assert loads <= arrival / 2
    assert answers == again
