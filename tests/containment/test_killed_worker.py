"""A worker is killed: what it held runs elsewhere after a lease, and nobody else waits for that."""

from __future__ import annotations

import signal

from lorapool.producer.handle import JobHandle
from lorapool.shared.errors import LorapoolError
from tests.containment import LONG
from tests.containment.conftest import Contain
from tests.containment.pool import ContainedPool
from tests.fake_worker import expected
from tests.fleet import until

TOKENS = 12


async def held(pool: ContainedPool, worker: str, count: int) -> list[JobHandle | LorapoolError]:
    """Jobs, some of which that worker holds."""
    handles = await pool.client.submit_many(
        [{"adapter": "held", "prompt": f"question {n}", "max_new_tokens": TOKENS} for n in range(count)]
    )
    await until(lambda: pool.redis.hget("lp:{default/0}:held", worker))
    return handles


async def test_killed_with_short_jobs(contained: Contain) -> None:
    """A worker of three that is killed with jobs of a quarter of a second: each is lost at most once, and succeeds."""
    kills = 6 if LONG else 1
    async with contained(workers=3, step_s=0.02) as pool:
        digest = (await pool.adapters("held"))["held@1"]
        await pool.calm()
        async with pool.bystanders() as bystanders:
            for _ in range(kills):
                handles = await held(pool, "w1", 6)
                pool.workers["w1"].signal(signal.SIGKILL)
                await pool.left(pool.workers["w1"], -9)
                results = [await handle.result(30) for handle in handles]
                assert [expected(f"question {n}", digest, TOKENS) for n in range(6)] == [r.token_ids for r in results]
                assert max(result.attempts for result in results) <= 2
                await bystanders.served(60)
                pool.start("w1")
                await pool.ready("w1")
        bystanders.judge(factor=2.0)
