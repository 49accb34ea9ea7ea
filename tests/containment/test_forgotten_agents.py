"""Agents that ask and never come back: what they leave behind on the server is bounded."""

from __future__ import annotations

from lorapool.producer.client.handle import JobHandle
from lorapool.shared.server.terms import Terms
from tests.containment import LONG
from tests.containment.conftest import Contain
from tests.containment.pool import ContainedPool
from tests.fake_model import expected
from tests.fleet import until

AGENT_JOBS = 50  # of each; its window is 64
TOKENS = 45  # an answer of half a kilobyte, short enough to come with its notice
STATS, INBOXES, AGENTS = ("lp:{default/0}:" + name for name in ("stats:held@1", "inbox:*", "agent:*"))


async def test_answers_that_nobody_awaits(contained: Contain) -> None:
    """An inbox that nobody reads takes 2 MiB of answers and from then on plain states, the last few of them; who does
    come back has every answer."""
    count = 24_000 if LONG else 6_000
    async with contained(workers=2, step_s=0.0, max_batch=64) as pool:
        digest = (await pool.adapters("held"))["held@1"]
        await pool.calm()
        async with pool.bystanders() as bystanders:
            handles = await submitted(pool, count)
            await until(lambda: ended(pool, count), timeout_s=120)
        bystanders.judge(factor=4.0, slack_s=3.0)  # they share two cores with thousands of jobs
        held = max([await pool.redis.memory_usage(key, samples=0) async for key in pool.redis.scan_iter(INBOXES)])
        print(f"{count:,} answers that nobody read hold {held / (1 << 20):.1f} MiB")
        assert held < 1.25 * Terms().inbox_bytes
        for number in (0, count // 2, count - 1):
            assert expected(f"q {number}", digest, TOKENS) == (await handles[number].result(30)).token_ids


async def test_counters_of_agents_that_never_come_back(contained: Contain) -> None:
    """They are kept for thirty days after an agent's last job; the adapter's keep the sum of them all."""
    async with contained(workers=1, step_s=0.0) as pool:
        await pool.adapters("held")
        await pool.client.gather(
            [{"adapter": "held", "prompt": "q", "max_new_tokens": 1, "agent": f"agent-{n}"} for n in range(100)]
        )
        left_ms = {key: await pool.redis.pttl(key) async for key in pool.redis.scan_iter(AGENTS) if b"agent-" in key}
        most_ms = Terms().agent_ttl_ms
        assert 100 == len(left_ms)
        assert all(most_ms - 600_000 < ms <= most_ms for ms in left_ms.values()), left_ms
        for key in left_ms:
            await pool.redis.pexpire(key, 1)
        await until(lambda: _gone(pool))
        assert b"100" == await pool.redis.hget(STATS, "succeeded")


async def submitted(pool: ContainedPool, count: int) -> list[JobHandle]:
    """Handles of so many jobs, in order; nobody awaits any."""
    handles = await pool.client.submit_many(
        [
            {"adapter": "held", "prompt": f"q {n}", "max_new_tokens": TOKENS, "agent": f"agent-{n // AGENT_JOBS}"}
            for n in range(count)
        ],
        wait=True,
    )
    return [handle for handle in handles if isinstance(handle, JobHandle)]


async def ended(pool: ContainedPool, count: int) -> bool:
    return int(await pool.redis.hget(STATS, "succeeded") or 0) >= count


async def _gone(pool: ContainedPool) -> bool:
    return not [key async for key in pool.redis.scan_iter(AGENTS) if b"agent-" in key]
