"""Records of jobs that ended go soon when whoever asked has their answers; nothing else does."""

from __future__ import annotations

from lorapool.shared.queue.protocol import Settlement
from tests.shared.conftest import Bench, success


async def test_only_what_ended_is_shed(bench: Bench) -> None:
    """Its record's time is cut short, never made longer; what waits or runs stays, and so does a dead letter."""
    done, dead, runs, waits = [await bench.enqueue() for _ in range(4)]
    for job_id in (done, dead, runs):
        [claimed] = await bench.claim(n=1)
        assert job_id == claimed.job_id
        if job_id == done:
            await bench.queue.settle([success(claimed)])
        elif job_id == dead:
            await bench.queue.settle([Settlement(dead, claimed.lease, "dead", error="Poisonous", message="so")])
    before = await bench.redis.pttl(bench.keys.job(dead))
    for _ in range(2):
        await bench.queue.shed([done, dead, runs, waits, "never-was"], 5.0)
    assert 0 < await bench.redis.pttl(bench.keys.job(done)) <= 5_000
    assert before - 5_000 < await bench.redis.pttl(bench.keys.job(dead))
    assert [-1, -1] == [await bench.redis.pttl(bench.keys.job(job_id)) for job_id in (runs, waits)]
    await bench.queue.shed([done], 60.0)
    assert await bench.redis.pttl(bench.keys.job(done)) <= 5_000


async def test_a_window_is_that_of_key_adapter_or_pool(bench: Bench) -> None:
    """What is nearest says how many undelivered jobs an agent may have."""
    await bench.enqueue(agent="ada")
    assert (1, 64) == await bench.queue.window("cfo@1", "ada")
    await bench.queue.limits("cfo@1", agent_window=8)
    assert (1, 8) == await bench.queue.window("cfo@1", "ada", "k1")
    await bench.redis.hset(bench.keys.key("k1"), "window", 3)
    assert (1, 3) == await bench.queue.window("cfo@1", "ada", "k1")
