"""Jobs that fail on one worker only, whose driver is old or whose memory is bad: the retry goes to another."""

from __future__ import annotations

from lorapool.shared.job import Result
from tests.containment.conftest import Contain
from tests.fake_model import BROKEN, expected


async def test_a_retry_goes_to_another_worker(contained: Contain) -> None:
    """Of two workers one raises at such jobs, and computes all others: whatever it failed succeeds next, elsewhere."""
    count = 24
    async with contained(workers=1, step_s=0.01) as pool:
        digest = (await pool.adapters("held"))["held@1"]
        await pool.calm()
        pool.start("sound", {"breaks": False})
        await pool.ready("sound")
        async with pool.bystanders() as bystanders:
            results = await pool.client.gather(
                [{"adapter": "held", "prompt": f"{BROKEN} {n}", "max_new_tokens": 4} for n in range(count)], timeout=120
            )
            await bystanders.served(20)
        bystanders.judge(factor=2.0, slack_s=2.0)
        answered = [result for result in results if isinstance(result, Result)]
        assert [expected(f"{BROKEN} {n}", digest, 4) for n in range(count)] == [one.token_ids for one in answered]
        assert {"sound"} == {one.worker for one in answered}
        assert 2 == max(one.attempts for one in answered)
