"""An alias moves while a worker process is at work: what was submitted stays on the version it was given."""

from __future__ import annotations

import asyncio

from redis.asyncio import Redis

from lorapool.producer import Client, Result
from tests.fake_model import expected
from tests.fleet import add_adapters, alive, fake_worker, until


async def test_jobs_in_flight_finish_on_their_version(redis_url: str, redis: Redis) -> None:
    """Running and waiting jobs answer with version 1 after the move, later ones with 2, after a rollback with 1 again;
    another client follows within about a second."""
    digests = await add_adapters(redis, "cfo", "cfo-next")
    first, second = digests["cfo@1"], digests["cfo-next@1"]
    with fake_worker(redis_url, model={"step_s": 0.02}, max_batch=1, claim_ahead=0):
        await alive(redis, "w1")
        async with Client(redis_url) as pool, Client(redis_url) as other:
            await pool.adapters.alias("ceo.finance", "cfo@1")
            assert "cfo@1" == await other.adapters.resolve("CEO.Finance")
            jobs = [await pool.submit("ceo.finance", f"q{n}", max_new_tokens=20) for n in range(3)]
            await until(jobs[0].state)
            await pool.adapters.alias("ceo.finance", "cfo-next@1")
            later = await pool.submit("ceo.finance", "q3", max_new_tokens=20)
            assert not (await jobs[-1].state()).terminal
            moved = await until(lambda: _resolves(other, "cfo-next@1"), timeout_s=10)
            await pool.adapters.rollback("ceo.finance")
            back = await pool.submit("ceo.finance", "q4", max_new_tokens=20)
            results = await pool.gather([*jobs, later, back], timeout=60)
    assert moved
    digest_of = [first, first, first, second, first]
    for number, (result, digest) in enumerate(zip(results, digest_of, strict=True)):
        assert isinstance(result, Result), result
        assert (digest, expected(f"q{number}", digest, 20)) == (result.digest, result.token_ids)


async def _resolves(client: Client, ref: str) -> bool:
    await asyncio.sleep(0.05)
    return await client.adapters.resolve("ceo.finance") == ref
