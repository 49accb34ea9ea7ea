"""A device that computes nothing, or has no memory left: that is nobody's job's fault."""

from __future__ import annotations

from lorapool.shared.job import Result
from tests.containment import LONG
from tests.containment.conftest import Contain
from tests.fake_model import expected
from tests.fleet import alive


async def test_a_device_that_died(contained: Contain) -> None:
    """One of two workers fails at every step from some moment on: it gives its jobs back unburnt, finds that a new
    engine does not compute either, and leaves; every sound job succeeds, in its first attempt."""
    count = 300 if LONG else 100
    async with contained(workers=1, step_s=0.01) as pool:
        digest = (await pool.adapters("held"))["held@1"]
        await pool.calm()
        pool.start("sick", {"sick_after": 20})
        await pool.ready("sick")
        async with pool.bystanders() as bystanders:
            results = await pool.client.gather(
                [
                    {"adapter": "held", "prompt": f"q {n}", "max_new_tokens": 8, "agent": f"agent-{n % 10}"}
                    for n in range(count)
                ],
                timeout=120,
            )
            await pool.left(pool.workers["sick"], 1, within_s=60)
            await bystanders.served(20)
        bystanders.judge(factor=2.0, slack_s=2.0)
        for n, result in enumerate(results):
            assert isinstance(result, Result), result
            assert (expected(f"q {n}", digest, 8), 1) == (result.token_ids, result.attempts)
        assert {("sick", 0)} == {(line["why"], line["blamed"]) for line in pool.workers["sick"].events("engine lost")}


async def test_a_device_that_is_full(contained: Contain) -> None:
    """There is memory for three rows of eight: fewer run, for a while, and no job fails or loses an attempt."""
    async with contained(workers=1, step_s=0.01) as pool:
        digest = (await pool.adapters("held"))["held@1"]
        await pool.calm()
        pool.start("full", {"rows_in_memory": 3})
        await pool.ready("full")
        async with pool.bystanders() as bystanders:
            results = await pool.client.gather(
                [
                    {"adapter": "held", "prompt": f"q {n}", "max_new_tokens": 20, "agent": f"agent-{n % 10}"}
                    for n in range(60)
                ],
                timeout=120,
            )
            await bystanders.served(20)
            beat = await alive(pool.redis, "full")
        bystanders.judge(factor=3.0, slack_s=2.0)
        for n, result in enumerate(results):
            assert isinstance(result, Result), result
            assert (expected(f"q {n}", digest, 20), 1) == (result.token_ids, result.attempts)
        assert "full" in {result.worker for result in results if isinstance(result, Result)}
        assert 0 < int(beat["shrinks"])
