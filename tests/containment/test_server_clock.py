"""The server's clock jumps an hour forward and back: nobody waits for that hour to pass again."""

from __future__ import annotations

import asyncio
import signal

from lorapool.shared.server.keys import Keys
from tests.chaos import clock
from tests.containment import LONG
from tests.containment.conftest import Contain
from tests.fake_model import expected
from tests.fleet import until

KEYS = Keys("default")
TOKENS = 12
WORKERS = ("w1", "w2", "w3")


async def test_a_clock_that_goes_ahead_an_hour_and_comes_back(contained: Contain) -> None:
    """While it is ahead and once it is back: jobs run, a delay ends, and what a worker had claimed before the jump and
    was killed with starts again after a lease."""
    with clock.followed():
        async with contained(workers=0, step_s=0.02) as pool:
            for name in WORKERS:
                pool.start(name, environment={clock.VARIABLE: "1"})
            await pool.ready(*WORKERS)
            digest = (await pool.adapters("held"))["held@1"]
            await pool.calm()
            async with pool.bystanders() as bystanders:
                for _ in range(3 if LONG else 1):
                    long = await pool.client.submit("held", "long", max_new_tokens=300)
                    name = (await until(lambda long=long: pool.redis.hget(KEYS.job(long.id), "worker"))).decode()
                    await pool.redis.set(clock.KEY, clock.HOUR_MS)
                    await asyncio.sleep(2.0)
                    then = await pool.client.submit("held", "then", max_new_tokens=TOKENS, delay=2.0)
                    await pool.redis.delete(clock.KEY)
                    pool.workers[name].signal(signal.SIGKILL)
                    await pool.left(pool.workers[name], -9)
                    for job, prompt, tokens in ((then, "then", TOKENS), (long, "long", 300)):
                        assert expected(prompt, digest, tokens) == (await job.result(30)).token_ids
                    await bystanders.served(40)
                    pool.start(name, environment={clock.VARIABLE: "1"})
                    await pool.ready(name)
            bystanders.judge(factor=2.0)
