"""A fleet of a thousand: what a worker's heartbeat costs the server does not grow with the others."""

from __future__ import annotations

import asyncio

from lorapool.shared.fleet.membership import RUNNING
from lorapool.worker.loop.presence import Presence
from tests.containment.conftest import Contain
from tests.containment.pool import ContainedPool
from tests.parts import membership_of

FLEET = 1000
SECONDS = 3.0
RESIDENT = " ".join(f"adapter-{number}@1.0.0" for number in range(64))  # 1.2 kB, as of a busy worker


async def test_a_thousand_workers(contained: Contain) -> None:
    """Two that beat ten times a second beside a thousand others have the server send them no more than the thousand's
    names now and then, and never what each says of itself."""
    async with contained(workers=2) as pool:
        await pool.calm()
        async with pool.bystanders() as bystanders:
            alone = await sent_per_s(pool)
            await others(pool, FLEET)
            among = await sent_per_s(pool)
        bystanders.judge(factor=2.0)
        print(f"the server sent {alone / 1000:.0f} kB/s to two workers, and {among / 1000:.0f} kB/s among {FLEET:,}")
        assert among - alone < 100_000  # all that the thousand say, read once, is 1.3 MB


async def others(pool: ContainedPool, count: int) -> None:
    """So many workers that are there, each with a beat that lives for minutes."""
    members = membership_of(pool.redis, "default")
    for number in range(count):
        presence = Presence(members, f"far-{number}", every_s=60.0)
        await presence.join()
        await presence.beat({"state": RUNNING, "resident": RESIDENT})


async def sent_per_s(pool: ContainedPool) -> float:
    """Bytes that the server sends to all its clients."""
    before = (await pool.redis.info("stats"))["total_net_output_bytes"]
    await asyncio.sleep(SECONDS)
    return float((await pool.redis.info("stats"))["total_net_output_bytes"] - before) / SECONDS
