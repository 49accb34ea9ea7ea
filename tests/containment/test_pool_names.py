"""Tenants whose pools' names are as like as can be: none sees, answers or disturbs another."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from hashlib import sha256

from redis.asyncio import Redis

from lorapool.producer.client.client import Client
from lorapool.shared.catalog.catalog import AdapterRecord
from tests.fake_model import expected
from tests.fleet import alive, fake_worker
from tests.parts import catalog_of

POOLS = ("acme", "acme.0", "acme.0.0")
JOBS = 12


async def add_cfo(redis: Redis, pool: str) -> str:
    """``cfo@1``, the same name with other content in each pool; its digest."""
    catalog, digest = catalog_of(redis, pool), sha256(pool.encode()).hexdigest()
    await catalog.register(AdapterRecord(id="cfo", version="1", digest=digest, uri="file:///cfo", aliases=("boss",)))
    await catalog.decide("cfo@1", "ready")
    return digest


async def test_pools_whose_names_differ_by_a_partitions_number(redis_url: str, redis: Redis) -> None:
    """``acme`` and ``acme.0``: each answers with its own adapter of that name, counts its own jobs, and stays."""
    async with AsyncExitStack() as stack:
        workers = [stack.enter_context(fake_worker(redis_url, pool=pool)) for pool in POOLS]
        await asyncio.gather(*(alive(redis, "w1", pool) for pool in POOLS))
        digests = {pool: await add_cfo(redis, pool) for pool in POOLS}
        clients = {pool: await stack.enter_async_context(Client(redis_url, pool=pool)) for pool in POOLS}
        prompts = [f"question {number}" for number in range(JOBS)]

        async def ask(pool: str) -> None:
            asked = [{"adapter": "boss", "prompt": prompt, "max_new_tokens": 6} for prompt in prompts]
            results = [await job.result(30) for job in await clients[pool].submit_many(asked)]
            assert [expected(prompt, digests[pool], 6) for prompt in prompts] == [r.token_ids for r in results]
            assert {digests[pool]} == {result.digest for result in results}

        await asyncio.gather(*map(ask, POOLS))
        for pool in POOLS:
            assert JOBS == (await clients[pool].stats("cfo"))["succeeded"]
            assert [] == await clients[pool].upkeep.fsck()
            assert ["w1"] == [beat["worker"] for beat in await clients[pool].workers()]
        assert [0, 0, 0] == [worker.stop() for worker in workers]
