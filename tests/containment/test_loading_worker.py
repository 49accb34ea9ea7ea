"""A worker that still loads its model is there: who waits for a worker waits for it."""

from __future__ import annotations

import asyncio

from tests.containment.conftest import Contain
from tests.fake_model import expected
from tests.fleet import until

LOAD_S = 6.0  # longer than a client waits for any worker to be there, and than a heartbeat lives


async def test_the_only_worker_still_loads(contained: Contain) -> None:
    """It beats all the time with how far it is; ``register`` and a job wait for it, and ``explain`` names it."""
    async with contained(workers=0) as pool:
        worker = pool.start("w1", {"load_s": LOAD_S}, beat_s=0.5)
        await until(pool.client.workers)
        registering = asyncio.create_task(pool.client.adapters.register("late", "s3://bucket/late", digest="d" * 64))
        job = await pool.client.submit(None, "hello", max_new_tokens=4)

        async def loads() -> bool:
            [beat] = await pool.client.workers()
            return (beat["state"], beat["progress"]) == ("loading", "loading fake")

        await until(loads)
        told = await job.explain()
        assert ("no_worker", True) == (told.reason, "w1 is loading its model (loading fake)" in told.message)
        assert "ready" == (await registering).status
        assert expected("hello", "", 4) == (await job.result(20)).token_ids
        assert [] == worker.events("worker cannot go on")
