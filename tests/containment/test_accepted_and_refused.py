"""A call that brings an error costs the jobs that it is about: each says what surely became of it, none runs twice."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from redis.asyncio import Redis

from lorapool.producer import Client, Fate, JobHandle, LorapoolError, RedisFull, Result
from tests.conftest import running_server
from tests.fleet import alive, fake_worker


@pytest.fixture
async def server() -> AsyncIterator[str]:
    with running_server("--maxmemory-policy", "noeviction") as url:
        yield url


def fill_after_one_part(client: Client, redis: Redis, monkeypatch: pytest.MonkeyPatch) -> None:
    """From the second enqueue on the server has no room."""
    command, sent = client._parts.connection._redis.execute_command, []

    async def filling(*words: Any) -> Any:
        if words[0] == "EVALSHA":
            sent.append(words[1])
            if len(sent) == 2:
                await redis.config_set("maxmemory", 1)
        return await command(*words)

    monkeypatch.setattr(client._parts.connection._redis, "execute_command", filling)


async def submit(client: Client, n: int, job_id: str | None = None) -> JobHandle | LorapoolError:
    try:
        return await client.submit(None, f"job {n}", agent=f"agent-{n}", max_new_tokens=2, job_id=job_id)
    except LorapoolError as error:
        return error


@pytest.mark.parametrize("together", [False, True], ids=["submit", "submit_many"])
async def test_a_server_that_fills_up_between_two_parts_of_a_call(
    server: str, together: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of 128 jobs sent together the first 64 find room: they have their handles, only the others are refused; and
    submitting those again by the ids that their errors name makes 128 jobs, each run once."""
    async with Client(server) as client, Redis.from_url(server) as redis:
        fill_after_one_part(client, redis, monkeypatch)
        if together:
            asked = [{"adapter": None, "prompt": f"job {n}", "agent": f"agent-{n}"} for n in range(128)]
            outcomes = await client.submit_many([item | {"max_new_tokens": 2} for item in asked])
        else:
            outcomes = list(await asyncio.gather(*(submit(client, n) for n in range(128))))
        assert [JobHandle] * 64 + [RedisFull] * 64 == [type(outcome) for outcome in outcomes]
        refused = [outcome for outcome in outcomes if isinstance(outcome, RedisFull)]
        assert {Fate.NOT_QUEUED} == {error.fate for error in refused}
        assert 64 == len({error.job_id for error in refused})
        assert all(f"job {error.job_id} was not queued" in str(error) for error in refused)
        assert 64 == (await client.stats(None))["submitted"]

        monkeypatch.undo()
        await redis.config_set("maxmemory", 0)
        again = await asyncio.gather(*(submit(client, 64 + n, error.job_id) for n, error in enumerate(refused)))
        assert [error.job_id for error in refused] == [job.id for job in again if isinstance(job, JobHandle)]
        with fake_worker(server, "w1", {"step_s": 0.0}):
            await alive(redis, "w1")
            handles = [job for job in (*outcomes, *again) if isinstance(job, JobHandle)]
            answers = await client.gather(handles, timeout=60)
        assert [Result] * 128 == [type(answer) for answer in answers]
        assert 128 == (await client.stats(None))["succeeded"]
