"""Keys and quotas, as an agent's code meets them."""

from __future__ import annotations

import asyncio
import copy

import pytest

from lorapool.producer import Client, Result, sync
from lorapool.shared.errors import Fate, QuotaExceeded, UnknownKey
from tests.producer.canned_worker import CannedWorker


async def test_who_waits_for_room_does_not_wait_for_a_quota(client: Client) -> None:
    """It is no matter of moments: raised at once, with the numbers."""
    await client.keys.add("board-7", tokens_per_day=10)
    async with asyncio.timeout(20):
        with pytest.raises(QuotaExceeded) as refused:
            await client.submit(None, "hello", key="board-7", job_id="mine", wait=True)
    error = refused.value
    assert ("board-7", "tokens_per_day", 10, 0) == (error.key, error.limit_name, error.limit, error.used)
    assert (Fate.NOT_QUEUED, "0.mine") == (error.fate, error.job_id)
    assert "job 0.mine was not queued" in str(error)


async def test_a_gathered_job_beyond_a_quota_is_an_error_in_its_place(client: Client, worker: CannedWorker) -> None:
    """The others are answered; nothing waits for the next minute."""
    await client.keys.add("board-7", jobs_per_minute=2)
    requests = [
        {"adapter": None, "prompt": "a", "key": key} for key in ("board-7", None, "board-7", "board-7", "nobody")
    ]
    async with asyncio.timeout(20):
        kinds = [type(answer) for answer in await client.gather(requests)]
    assert [Result, Result, Result, QuotaExceeded, UnknownKey] == kinds


async def test_a_job_tells_its_key(client: Client, worker: CannedWorker) -> None:
    """In its record; and what it used is what its answer says."""
    await client.keys.add("board-7")
    job = await client.submit(None, "hello there", key="board-7")
    usage = (await job.result(timeout=20)).usage
    assert "board-7" == (await job.record())["key"]
    [use] = await client.keys.list()
    assert (1, usage.prompt_tokens + usage.completion_tokens) == (use.jobs, use.tokens)


def test_an_exceeded_quota_travels_whole() -> None:
    """As a copy, with all that it says; so it is told of each job that it is about."""
    error = QuotaExceeded("so", key="k", limit_name="jobs_per_minute", limit=1, used=2, retry_after_s=3.0)
    again = copy.copy(error)
    assert (vars(error), str(error)) == (vars(again), str(again))


def test_keys_without_an_event_loop(redis_url: str, pool_name: str) -> None:
    """The blocking client has the same names."""
    with sync.Client(redis_url, pool=pool_name) as pool:
        assert pool.keys.add("board-7", jobs_per_minute=1).startswith("lp-")
        pool.submit(None, "a", key="board-7")
        with pytest.raises(QuotaExceeded):
            pool.submit(None, "b", key="board-7", wait=True)
        assert [("board-7", 1)] == [(use.key.name, use.jobs) for use in pool.keys.list()]
        pool.keys.revoke("board-7")
        assert pool.keys.get("board-7").revoked_ms is not None
