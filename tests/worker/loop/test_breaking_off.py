"""A worker one of whose loops ends by a mistake of ours."""

from __future__ import annotations

import pytest
from redis.asyncio import Redis

from lorapool.producer.client.client import Client
from lorapool.shared.server.settings import redis_settings
from lorapool.worker.cli import serve
from lorapool.worker.config import WorkerConfig
from lorapool.worker.host import InProcess
from lorapool.worker.loop.lease_keeper import LeaseKeeper
from lorapool.worker.loop.settler import Settler
from tests.fake_model import FakeModel
from tests.fake_worker import FakeTokenizer

LONG = 1500  # tokens: longer than the worker lives


async def broken(*_: object) -> None:
    raise TypeError("a mistake of ours")


async def served(redis_url: str) -> None:
    """A worker in this process, until it ends."""
    config = WorkerConfig.parse(worker_id="w1", base_model="fake", lease_s=1.5, beat_s=0.1, slots=2, max_batch=4)
    host = InProcess(FakeModel(config, step_s=0.005), FakeTokenizer(5.0), lambda _record: {})
    await serve(config, redis_settings(redis_url), host)


async def test_what_it_holds_is_given_back_unburnt(redis_url: str, redis: Redis, monkeypatch: pytest.MonkeyPatch):
    """It raises what ended it, once its jobs wait again: none has lost an attempt, none is a suspect, and its name is
    free."""
    monkeypatch.setattr(LeaseKeeper, "renew", broken)
    async with Client(redis_url) as pool:
        jobs = [await pool.submit(None, f"q {n}", max_new_tokens=LONG, agent=f"a{n}") for n in range(3)]
        with pytest.raises(TypeError, match="a mistake of ours"):
            await served(redis_url)
        records = [await job.record() for job in jobs]
    assert [("queued", "0", "0")] * 3 == [(r["state"], r["attempts"], r["lost"]) for r in records]
    assert 0 == await redis.zcard("lp:{default/0}:leases")
    assert not await redis.exists("lp:{default}:worker:w1")


async def test_what_the_failing_call_was_about_is_lost(redis_url: str, redis: Redis, monkeypatch: pytest.MonkeyPatch):
    """A job whose end cannot be settled counts as lost, so that it does not end one worker after the other; the others
    go back unburnt."""
    monkeypatch.setattr(Settler, "_settle", broken)
    async with Client(redis_url) as pool:
        others = [await pool.submit(None, f"q {n}", max_new_tokens=LONG, agent=f"a{n}") for n in range(2)]
        ended = await pool.submit(None, "short", max_new_tokens=3)
        with pytest.raises(TypeError, match="a mistake of ours"):
            await served(redis_url)
        records = [await job.record() for job in (*others, ended)]
    assert ["0", "0", "1"] == [record["lost"] for record in records]
    assert {"queued"} == {record["state"] for record in records}
