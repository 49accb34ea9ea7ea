"""Tenants on one server whose pools have names that look alike: neither reads, serves or breaks what is the other's."""

from __future__ import annotations

import asyncio
from hashlib import sha256

from lorapool.producer.client import Client
from lorapool.shared.catalog import AdapterRecord, Catalog
from lorapool.shared.keys import PoolKeys
from tests.containment.conftest import Contain
from tests.containment.pool import ContainedPool
from tests.fake_worker import expected
from tests.fleet import WorkerProcess, alive, fake_worker, until

TENANTS = ("acme", "acme.0")


def tenant(pool: ContainedPool, name: str) -> WorkerProcess:
    """That pool's only worker."""
    environment = {"LORAPOOL_POOL": name}
    worker = fake_worker(pool.url, "w1", {"step_s": 0.01}, environment, pool=name, lease_s=1.0)
    return pool.enter(worker)


async def add_cfo(pool: ContainedPool, name: str) -> str:
    """Each has an adapter of the same name, with content of its own; its digest."""
    catalog, digest = Catalog(pool.redis, name), sha256(name.encode()).hexdigest()
    await catalog.register(AdapterRecord(id="cfo", version="1", digest=digest, uri=f"file:///{name}"))
    await catalog.decide("cfo@1", "ready")
    return digest


async def test_pools_with_names_that_look_alike(contained: Contain) -> None:
    """`acme` and `acme.0` have each a worker and an adapter `cfo` of their own: each hears its own alone, and when one
    pool's keys all go, the other's jobs go on."""
    async with contained(workers=1) as pool:
        workers = [tenant(pool, name) for name in TENANTS]
        digests = [await add_cfo(pool, name) for name in TENANTS]
        async with Client(pool.url, pool="acme") as acme, Client(pool.url, pool="acme.0") as acme_0:
            await asyncio.gather(*(alive(pool.redis, "w1", name) for name in TENANTS))
            await pool.calm()
            async with pool.bystanders() as bystanders:
                for client, digest in zip((acme, acme_0), digests, strict=True):
                    results = await client.gather([("cfo", f"question {n}") for n in range(20)], timeout=30)
                    right = [expected(f"question {n}", digest, 128) for n in range(20)]
                    assert right == [result.token_ids for result in results]
                await erase(pool, "acme")
                result = await (await acme_0.submit("cfo", "still here?", max_new_tokens=5)).result(30)
                assert expected("still here?", digests[1], 5) == result.token_ids
            bystanders.judge(factor=2.0)
        assert [0, 0] == [worker.stop() for worker in workers]


async def erase(pool: ContainedPool, name: str) -> None:
    """All keys of that pool, as an administrator matches them."""
    for pattern in (f"lp:{{{name}}}:*", f"lp:{{{name}/*}}:*"):
        found = [key async for key in pool.redis.scan_iter(pattern)]
        assert found
        await pool.redis.delete(*found)


async def test_a_pool_of_another_layout(contained: Contain) -> None:
    """A worker meets a pool that an older release made: it leaves and names both layouts, and nobody else notices."""
    async with contained(workers=1) as pool:
        before = tenant(pool, "acme")
        await alive(pool.redis, "w1", "acme")
        assert 0 == await asyncio.to_thread(before.stop)
        await pool.calm()
        async with pool.bystanders() as bystanders:
            await pool.redis.hset(PoolKeys("acme").config, "layout", 1)
            late = tenant(pool, "acme")
            await until(lambda: late.process.poll() is not None)
            await bystanders.served(20)
        bystanders.judge(factor=2.0)
        assert late.process.returncode not in {0, None}
        assert "layout 1" in late.log() and "brings 2" in late.log()
