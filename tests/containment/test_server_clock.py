"""The server's clock jumps an hour forward and back: nobody waits for that hour to pass again."""

from __future__ import annotations

import asyncio
import signal

from lorapool.shared.keys import Keys
from tests.chaos import clock
from tests.containment import LONG
from tests.containment.conftest import Contain
from tests.containment.test_killed_worker import TOKENS, held
from tests.fake_model import expected
from tests.fleet import until

KEYS = Keys("default")
WORKERS = ("w1", "w2", "w3")


async def test_a_clock_that_goes_ahead_an_hour_and_comes_back(contained: Contain) -> None:
    """While it is ahead and once it is back: jobs run, delays end, and what a killed worker held starts again after a
    lease."""
    with clock.followed():
        async with contained(workers=0, step_s=0.02) as pool:
            for name in WORKERS:
                pool.start(name, environment={clock.VARIABLE: "1"})
            await pool.ready(*WORKERS)
            digest = (await pool.adapters("held"))["held@1"]
            await pool.calm()
            async with pool.bystanders() as bystanders:
                for _ in range(3 if LONG else 1):
                    long = await pool.client.submit("held", "long", max_new_tokens=200)
                    await until(lambda long=long: pool.redis.hget(KEYS.job(long.id), "worker"))
                    await pool.redis.set(clock.KEY, clock.HOUR_MS)
                    await asyncio.sleep(2.0)
                    then = await pool.client.submit("held", "then", max_new_tokens=TOKENS, delay=2.0)
                    await pool.redis.delete(clock.KEY)
                    handles = await held(pool, "w1", 6)
                    pool.workers["w1"].signal(signal.SIGKILL)
                    await pool.left(pool.workers["w1"], -9)
                    results = [await handle.result(30) for handle in handles]
                    assert [expected(f"question {n}", digest, TOKENS) for n in range(6)] == [
                        r.token_ids for r in results
                    ]
                    assert expected("then", digest, TOKENS) == (await then.result(30)).token_ids
                    assert expected("long", digest, 200) == (await long.result(30)).token_ids
                    await bystanders.served(40)
                    pool.start("w1", environment={clock.VARIABLE: "1"})
                    await pool.ready("w1")
            bystanders.judge(factor=2.0)
