"""The whole worker over the fake runner: what becomes of single jobs, and what it says of itself."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Iterator

import pytest
from redis.asyncio import Redis

from lorapool.producer.client.client import Client
from lorapool.shared.errors import JobFailed
from lorapool.shared.job import Job, Result
from lorapool.shared.server.keys import Keys, PoolKeys
from tests.fake_model import BROKEN, UNREADABLE, expected
from tests.fleet import WorkerProcess, add_adapters, alive, fake_worker, until
from tests.parts import Queue, membership_of


@pytest.fixture
def worker(redis_url: str) -> Iterator[WorkerProcess]:
    with fake_worker(redis_url, model={"step_s": 0.002, "max_model_len": 40_000}, slots=2) as worker:
        yield worker
        assert worker.stop() == 0


async def test_one_line_a_job(redis: Redis, pool: Client, worker: WorkerProcess) -> None:
    """Each job is one log line with who, what, which attempt, how long and how many tokens."""
    await add_adapters(redis, "a")
    job = await pool.submit("a", "hello", max_new_tokens=3, agent="board-7")
    await job.result(10)
    await until(lambda: worker.events("succeeded"))
    [line] = worker.events("succeeded")
    named = {"job": job.id, "agent": "board-7", "adapter": "a@1", "attempt": 1, "completion_tokens": 3}
    assert named == {name: line[name] for name in named}
    assert {"queue_ms", "load_ms", "first_token_ms", "total_ms"} <= line.keys()
    assert "hello" not in worker.log()


async def test_other_digest_than_enqueued_for(redis: Redis, pool: Client) -> None:
    """A job accepted for other content than the catalog names is failed, not answered by the wrong adapter."""
    await add_adapters(redis, "a")
    await redis.hset(Keys("default").adapter("a@1"), "digest", "f" * 64)
    job = await pool.submit("a", "hello")
    with pytest.raises(JobFailed, match="ffffffffffff") as failed:
        await job.result(10)
    assert ("AdapterConflict", 1) == (failed.value.error, failed.value.attempts)


async def test_adapter_gone_from_the_catalog(redis: Redis, pool: Client) -> None:
    """A job whose adapter has no record any more is failed with the reason."""
    await add_adapters(redis, "a")
    await redis.delete(PoolKeys("default").adapter("a@1"))
    queue = Queue(redis, "default")  # the client would not resolve the name
    enqueued = await queue.enqueue(Job.parse(id="orphan", ref="a@1", prompt="hello"))
    await queue.close()
    with pytest.raises(JobFailed) as failed:
        await pool.get(enqueued.job_id).result(10)
    assert failed.value.error == "UnknownAdapter"


async def test_broken_job_is_retried_alone(pool: Client) -> None:
    """A job at which every step breaks fails after its attempts; its batch mates are answered in their first."""
    good = [{"adapter": None, "prompt": f"good {n}", "max_new_tokens": 60} for n in range(5)]
    broken = await pool.submit(None, BROKEN, max_new_tokens=5)
    for n, result in enumerate(await pool.gather(good, timeout=30)):
        assert isinstance(result, Result)
        assert (expected(f"good {n}", "", 60), 1) == (result.token_ids, result.attempts)
    with pytest.raises(JobFailed, match="broken on purpose") as failed:
        await broken.result(30)
    assert ("RuntimeError", 3) == (failed.value.error, failed.value.attempts)


async def test_a_long_prompt_is_answered(pool: Client) -> None:
    """A prompt of many tokens is answered like any other."""
    prompt = "long " * 6000
    result = await (await pool.submit(None, prompt, max_new_tokens=2)).result(30)
    assert expected(prompt, "", 2) == result.token_ids


async def test_prefetch(redis: Redis, pool: Client) -> None:
    """An adapter asked for through the control stream is resident before any job wants it."""
    await add_adapters(redis, "a")
    queue = Queue(redis, "default")
    await queue.requests.send("w1", {"op": "load", "ref": "a@1"})
    await queue.requests.send("w1", {"op": "load", "ref": "nobody@1"})
    await queue.requests.send("w1", {"op": "dance"})

    async def resident() -> bool:
        return (await alive(redis, "w1"))["resident"] == "a@1"

    await until(resident)
    await queue.close()
    assert (await (await pool.submit("a", "hello", max_new_tokens=1)).result(10)).resident


async def test_heartbeat(redis: Redis, pool: Client) -> None:
    """The heartbeat is a hash of plain fields that vanishes within three beats of the last."""
    key = PoolKeys("default").worker("w1")
    await (await pool.submit(None, "hello", max_new_tokens=5)).result(10)
    await asyncio.sleep(0.3)
    fields = await alive(redis, "w1")
    told = {"device": "fake", "dtype": "float32", "base_model": "fake", "state": "running", "free_rows": "10"}
    assert told == {name: fields[name] for name in told}
    assert "5" == fields["step_rows"]
    assert 0 < await redis.pttl(key) <= 3 * 300  # tests/fleet.py's beat


async def test_usage_outlives_the_worker(redis: Redis, pool: Client) -> None:
    """What workers did stays in the pool's usage: time up and busy, steps, tokens.

    The server times ``open_ms`` where beats arrive, the worker ``up_ms`` where they leave: each against its own clock.
    """
    await (await pool.submit(None, "hello", max_new_tokens=5)).result(10)

    async def counted() -> bool:
        return (await membership_of(redis, "default").usage()).get("decode_tokens", 0) >= 4

    await until(counted)
    usage = await membership_of(redis, "default").usage()
    assert (5, 5, 5) == (usage["steps"], usage["step_rows"], usage["prefill_tokens"])
    assert usage["up_ms"] > 0
    assert 0 < usage["open_ms"] <= usage["last_ms"] - usage["since_ms"]


async def test_backlog_keeps_all_rows_busy(redis_url: str, redis: Redis) -> None:
    """While a backlog exists, steps are full: rows that fall free are filled from jobs claimed ahead."""
    with fake_worker(redis_url, model={"step_s": 0.01}, slots=2) as worker:
        await alive(redis, worker.name)
        digests = await add_adapters(redis, "a", "b")
        asked = [{"adapter": "ab"[n % 2], "prompt": f"q {n}", "max_new_tokens": 20} for n in range(80)]
        async with Client(redis_url) as pool:
            for n, result in enumerate(await pool.gather(asked, timeout=60)):
                assert isinstance(result, Result)
                assert expected(f"q {n}", digests[result.adapter], 20) == result.token_ids
        await asyncio.sleep(0.3)
        fields = await alive(redis, worker.name)
    assert int(fields["step_rows"]) / int(fields["steps"]) > 0.85 * 8


async def test_unforeseen_error_in_admission(pool: Client) -> None:
    """A job that breaks its admission in a way nobody thought of is retried and fails; the worker serves on."""
    job = await pool.submit(None, UNREADABLE)
    with pytest.raises(JobFailed) as failed:
        await job.result(30)
    assert ("AssertionError", 3) == (failed.value.error, failed.value.attempts)
    assert (await (await pool.submit(None, "hello", max_new_tokens=1)).result(10)).attempts == 1


async def test_a_draining_worker_says_so(redis_url: str, redis: Redis) -> None:
    """While a worker that was told to stop finishes its jobs, its heartbeat says that it claims no more."""
    with fake_worker(redis_url, model={"step_s": 0.02}) as leaving:
        assert "running" == (await alive(redis, leaving.name))["state"]
        async with Client(redis_url) as pool:
            job = await pool.submit(None, "hello", max_new_tokens=100, stream=True)
            await anext(job.stream(10))
            leaving.signal(signal.SIGTERM)
            await until(lambda: _is_draining(redis, leaving.name))
            assert 100 == (await job.result(20)).usage.completion_tokens
        assert leaving.wait() == 0


async def _is_draining(redis: Redis, name: str) -> bool:
    return (await redis.hget(PoolKeys("default").worker(name), "state")) == b"draining"
