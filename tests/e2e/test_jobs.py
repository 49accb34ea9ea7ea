"""One claim a test, over a real server and the real worker on the real model."""

from __future__ import annotations

import asyncio
import subprocess
import sys

import pytest

from lorapool.producer.client.client import Client
from lorapool.shared.errors import JobCancelled, JobExpired
from lorapool.shared.job import JobState, Result
from tests.e2e.conftest import RealPool
from tests.fleet import until

POLL = """
import sys, time, redis
client = redis.Redis.from_url(sys.argv[1], decode_responses=True)
key = "lp:{default/0}:job:" + sys.argv[2]
while client.hget(key, "state") != "succeeded":
    time.sleep(0.02)
assert "lorapool" not in sys.modules and "torch" not in sys.modules
print(client.hget(key, "text"), end="")
"""


async def test_first_delta_while_running(pool: Client) -> None:
    """The first piece of a streamed answer arrives while the job runs, and all pieces make up the answer."""
    job = await pool.submit("cfo", "Our plan for the year is", max_new_tokens=24, stream=True)
    states, text = [], ""
    async for delta in job.stream(timeout=60):
        states.append(await job.state())
        text += delta.text
    assert states[0] == JobState.RUNNING
    assert text == (await job.result()).text


async def test_polled_with_redis_alone(real_pool: RealPool, pool: Client) -> None:
    """A process that imports only redis reads the answer."""
    job = await pool.submit("ceo", "The meeting begins at", max_new_tokens=8, job_id="polled")
    poller = await asyncio.create_subprocess_exec(
        sys.executable, "-c", POLL, real_pool.url, "polled", stdout=subprocess.PIPE
    )
    printed, _ = await asyncio.wait_for(poller.communicate(), 60)
    assert poller.returncode == 0
    assert (await job.result()).text == printed.decode()


async def test_same_seed_in_any_batch(pool: Client) -> None:
    """The same seed gives the same text alone and among others; another seed another text."""
    asked = {"prompt": "Once upon a time", "temperature": 1.0, "max_new_tokens": 12}
    [alone] = await pool.gather([{"adapter": "cto", "seed": 7, **asked}], timeout=60)
    others = [{"adapter": name, "prompt": f"Chapter {name}:", "max_new_tokens": 16} for name in ("cfo", None, "cmo")]
    mixed = await pool.gather(
        [*others, {"adapter": "cto", "seed": 7, **asked}, {"adapter": "cto", "seed": 8, **asked}], timeout=60
    )
    assert all(isinstance(result, Result) for result in [alone, *mixed])
    texts = [result.text for result in [alone, *mixed] if isinstance(result, Result)]
    assert texts[0] == texts[4]
    assert texts[0] != texts[5]


async def test_cancelled_job_frees_its_row(pool: Client) -> None:
    """A running job that is cancelled ends so within moments, and its row is free again."""
    job = await pool.submit("coo", "List every number from one up:", max_new_tokens=400, ignore_eos=True)
    await until(lambda: _is(job.state(), JobState.RUNNING))
    await job.cancel()
    with pytest.raises(JobCancelled):
        await job.result(timeout=5)
    await until(lambda: _nothing_held(pool))
    record = await job.record()
    assert int(record["completion_tokens"]) < 400


async def test_deadline_while_running(pool: Client) -> None:
    """A job that cannot make its deadline is stopped when it passes, and says so."""
    job = await pool.submit("coo", "Count:", max_new_tokens=400, ignore_eos=True, deadline=1.5)
    await until(lambda: _is(job.state(), JobState.RUNNING))
    with pytest.raises(JobExpired, match="deadline"):
        await job.result(timeout=10)


async def test_stop_string_and_logprobs(pool: Client) -> None:
    """An answer ends before its stop string, and logprobs come one a token when asked for."""
    whole = await (await pool.submit(None, "One, two, three,", max_new_tokens=12, logprobs=True)).result(60)
    word = whole.text.split()[2]
    cut = await (await pool.submit(None, "One, two, three,", max_new_tokens=12, stop=[word])).result(60)
    assert whole.text[: whole.text.index(word)] == cut.text
    assert whole.logprobs is not None
    assert len(whole.token_ids) == len(whole.logprobs)
    assert all(value <= 0 for value in whole.logprobs)


async def test_result_tells_what_produced_it(pool: Client) -> None:
    """A result names adapter version, digest, worker, device, dtype and times."""
    record = await pool.adapters.get("cfo")
    result = await (await pool.submit("CFO", "Cash is", max_new_tokens=4)).result(60)
    assert (result.adapter, result.digest, result.worker) == ("cfo@1.0.0", record.digest, "w1")
    assert (result.device, result.dtype, result.attempts) == ("cpu", "float32", 1)
    times = result.timings
    assert None not in {times.queued_ms, times.load_ms, times.first_token_ms, times.total_ms}
    assert 0 <= (times.queued_ms or 0) <= (times.first_token_ms or 0) <= (times.total_ms or 0)


async def _is(state: object, wanted: JobState) -> bool:
    return await state == wanted  # type: ignore[misc]


async def _nothing_held(pool: Client) -> bool:
    """All rows of all workers are free, as their heartbeats say."""
    return all((worker["held"], worker["free_rows"]) == ("0", "20") for worker in await pool.workers())
