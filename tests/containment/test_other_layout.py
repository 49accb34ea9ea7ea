"""A pool that an older release made: who cannot work in it leaves at once and says why, and nobody else notices."""

from __future__ import annotations

import asyncio

from lorapool.shared.catalog.catalog import LAYOUT_VERSION
from lorapool.shared.server.keys import PoolKeys
from tests.containment.conftest import Contain
from tests.containment.pool import ContainedPool
from tests.fleet import WorkerProcess, alive, fake_worker


def tenant(pool: ContainedPool) -> WorkerProcess:
    """The only worker of another pool on that server."""
    return pool.enter(fake_worker(pool.url, "w1", {"step_s": 0.01}, {"LORAPOOL_POOL": "acme"}, pool="acme"))


async def test_a_pool_of_another_layout(contained: Contain) -> None:
    """A worker starts in it: it leaves and names both layouts; the bystanders' pool is on the same server."""
    async with contained(workers=1) as pool:
        before = tenant(pool)
        await alive(pool.redis, "w1", "acme")
        assert 0 == await asyncio.to_thread(before.stop)
        await pool.calm()
        async with pool.bystanders() as bystanders:
            await pool.redis.hset(PoolKeys("acme").config, "layout", 1)
            late = tenant(pool)
            assert await asyncio.to_thread(late.wait, 30) not in {0, None}
            await bystanders.served(20)
        bystanders.judge(factor=2.0)
        assert "layout 1" in late.log() and str(LAYOUT_VERSION) in late.log()
