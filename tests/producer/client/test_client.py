"""Client and JobHandle against a real server and a worker with canned answers."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time
from typing import Any

import pytest
from redis.asyncio import Redis

from lorapool.producer import (
    Client,
    InvalidRequest,
    JobCancelled,
    JobConflict,
    JobExpired,
    JobFailed,
    JobHandle,
    JobLost,
    JobState,
    LorapoolError,
    PayloadTooLarge,
    QueueFull,
    RedisAuthFailed,
    RedisUnreachable,
    Result,
    ResultExpired,
    ResultTimeout,
    UnknownAdapter,
    UnknownJob,
)
from lorapool.producer.client import inbox, record
from tests.producer.canned_worker import CannedWorker, serving


async def test_an_awaited_job_brings_its_result_and_what_made_it(client: Client, worker: CannedWorker) -> None:
    """Text, usage, finish reason, timings, ref, worker, device, seed and token ids all come back."""
    job = await client.submit(None, "hello there", max_new_tokens=3, agent="board-7", logprobs=True)
    result = await job.result(timeout=10)
    assert result.text == "_base heard: hello"
    assert (result.finish_reason, result.usage.completion_tokens) == ("length", 3)
    assert (result.adapter, result.agent, result.attempts, result.worker) == ("_base", "board-7", 1, worker.name)
    assert (result.token_ids, result.logprobs) == ((0, 1, 2), (-0.5, -0.5, -0.5))
    assert result.timings.total_ms is not None
    assert result.job_id == job.id
    assert await job.result() == result, "a second await brings the same"
    assert await job.state() is JobState.SUCCEEDED


async def test_a_finished_job_can_be_awaited_late(client: Client, worker: CannedWorker) -> None:
    """A result that came before anybody asked is there at once."""
    first = await client.submit(None, "one")
    late = await client.submit(None, "two")
    await first.result(timeout=10)
    await _until(late, JobState.SUCCEEDED)
    began = time.monotonic()
    assert (await late.result(timeout=10)).text == "_base heard: two"
    assert time.monotonic() - began < 4  # the next look-up would be later


@pytest.mark.parametrize("full", [True, False])
async def test_any_process_gets_the_answer_by_id(
    redis_url: str, pool_name: str, client: Client, worker: CannedWorker, full: bool
) -> None:
    """Full or bare id, from a client that did not submit it."""
    job = await client.submit(None, "hello", job_id="mine")
    async with Client(redis_url, pool=pool_name) as other:
        result = await other.get(job.id if full else "mine").result(timeout=10)
    assert result.text == "_base heard: hello"
    assert result.job_id == "0.mine"


async def test_a_process_with_only_redis_polls_a_result(
    redis_url: str, pool_name: str, client: Client, worker: CannedWorker
) -> None:
    """The answer is a plain field; no code of ours is needed to read it."""
    await client.submit(None, "hello", job_id="plain")
    program = (
        "import sys, time, redis\n"
        "r = redis.Redis.from_url(sys.argv[1], decode_responses=True)\n"
        "while (state := r.hget(sys.argv[2], 'state')) != 'succeeded': time.sleep(0.02)\n"
        "assert not [name for name in sys.modules if name.startswith('lorapool')]\n"
        "print(r.hget(sys.argv[2], 'text'))\n"
    )
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", program, redis_url, f"lp:{{{pool_name}/0}}:job:plain", stdout=subprocess.PIPE
    )
    out, _ = await asyncio.wait_for(process.communicate(), 20)
    assert out.decode().strip() == "_base heard: hello"


async def test_the_first_delta_comes_while_the_job_runs(redis_url: str, pool_name: str, client: Client) -> None:
    """A stream begins before its end, and its pieces are the text."""
    async with serving(redis_url, pool_name, word_s=0.03):
        job = await client.submit(None, "a b c d e f", stream=True)
        deltas = [(delta, await job.state()) async for delta in job.stream(timeout=20)]
    assert deltas[0][1] is JobState.RUNNING
    assert "".join(delta.text for delta, _ in deltas) == (await job.result()).text == "_base heard: a b c d e f"
    assert [token for delta, _ in deltas for token in delta.token_ids] == list(range(8))


async def test_a_stream_can_be_read_again_from_its_beginning(client: Client, worker: CannedWorker) -> None:
    """Reading is not taking: a second reader, in another handle, sees all of it."""
    job = await client.submit(None, "a b", stream=True)
    for handle in (job, job, client.get(job.id)):
        assert "".join([delta.text async for delta in handle.stream(timeout=10)]) == "_base heard: a b"


async def test_a_stream_goes_on_after_a_retry_without_repeating(redis_url: str, pool_name: str, client: Client) -> None:
    """A worker dies in the middle of a stream; the reader sees one text, once."""
    async with serving(redis_url, pool_name, name="doomed", lease_ms=500):
        job = await client.submit(None, "die a b c d", stream=True)
        stream = job.stream(timeout=30)
        got = [await anext(stream)]
    async with serving(redis_url, pool_name, name="heir", lease_ms=500):
        got += [delta async for delta in stream]
    assert "".join(delta.text for delta in got) == "_base heard: die a b c d"
    assert [token for delta in got for token in delta.token_ids] == list(range(7))
    assert (got[-1].attempt, got[-1].restart) == (2, False)


async def test_more_streams_than_pooled_connections_all_begin_at_once(
    redis_url: str, pool_name: str, client: Client
) -> None:
    """A hundred readers in one client: every one has its first delta before any has its last."""
    began, ended = [], []

    async def read(job: JobHandle) -> str:
        stream = job.stream(timeout=20)
        text = (await anext(stream)).text
        began.append(time.monotonic())
        text += "".join([delta.text async for delta in stream])
        ended.append(time.monotonic())
        return text

    asked = [{"adapter": None, "prompt": f"number {n}", "stream": True, "agent": f"a{n}"} for n in range(100)]
    jobs = [job for job in await client.submit_many(asked) if isinstance(job, JobHandle)]
    reading = [asyncio.create_task(read(job)) for job in jobs]
    async with serving(redis_url, pool_name, word_s=0.4):
        texts = await asyncio.gather(*reading)
    assert texts == [f"_base heard: number {n}" for n in range(100)]
    assert max(began) < min(ended)


async def test_streaming_what_was_not_streamed_is_refused(client: Client, worker: CannedWorker) -> None:
    """It says how to get the answer instead."""
    job = await client.submit(None, "hello")
    for handle in (job, client.get(job.id)):
        with pytest.raises(InvalidRequest, match="submitted without stream=True"):
            await anext(handle.stream())


async def test_a_stream_of_a_failed_job_ends_in_its_error(client: Client, worker: CannedWorker) -> None:
    """As result() would."""
    job = await client.submit(None, "fail now", stream=True)
    with pytest.raises(JobFailed):
        _ = [delta async for delta in job.stream(timeout=10)]


async def test_a_failed_job_raises_what_and_why(client: Client, worker: CannedWorker) -> None:
    """The error's stable name, its message and the number of attempts."""
    job = await client.submit(None, "fail please")
    with pytest.raises(JobFailed, match="PromptTooLong: 9000 tokens exceed 2048") as caught:
        await job.result(timeout=10)
    assert (caught.value.error, caught.value.attempts, caught.value.job_id) == ("PromptTooLong", 1, job.id)


async def test_a_waiting_job_is_cancelled_at_once(client: Client) -> None:
    """Nobody has it, so it ends with the call; the awaiter hears of it."""
    job = await client.submit(None, "hello")
    waiting = asyncio.create_task(job.result(timeout=10))
    await asyncio.sleep(0.05)
    assert await job.cancel() is JobState.CANCELLED
    with pytest.raises(JobCancelled):
        await waiting
    assert await job.cancel() is JobState.CANCELLED


async def test_a_running_job_is_cancelled_through_its_worker(client: Client, worker: CannedWorker) -> None:
    """cancel() reports running until the worker let go; the awaiter gets JobCancelled."""
    job = await client.submit(None, "hang on")
    await _until(job, JobState.RUNNING)
    assert await job.cancel() is JobState.RUNNING
    with pytest.raises(JobCancelled):
        await job.result(timeout=10)


async def test_a_job_that_ended_cannot_be_cancelled(client: Client, worker: CannedWorker) -> None:
    """Its state stays, and cancel says so."""
    job = await client.submit(None, "hello")
    await job.result(timeout=10)
    assert await job.cancel() is JobState.SUCCEEDED


async def test_a_local_timeout_leaves_the_job_alone(redis_url: str, pool_name: str, client: Client) -> None:
    """ResultTimeout (a TimeoutError), and a later await brings the answer."""
    job = await client.submit(None, "hello")
    with pytest.raises(ResultTimeout, match="it goes on") as caught:
        await job.result(timeout=0.05)
    assert isinstance(caught.value, TimeoutError)
    async with serving(redis_url, pool_name):
        assert (await job.result(timeout=10)).text == "_base heard: hello"


async def test_an_overdue_job_expires_without_any_worker(client: Client) -> None:
    """The client that waits ends it when its deadline has passed."""
    job = await client.submit(None, "hello", deadline=0.2)
    with pytest.raises(JobExpired, match="deadline"):
        await job.result(timeout=10)
    assert await job.state() is JobState.EXPIRED


async def test_the_same_id_and_request_is_the_same_job(client: Client, worker: CannedWorker) -> None:
    """An idempotent submit returns the existing job, not None and not a second run."""
    first = await client.submit(None, "hello", job_id="once")
    again = await client.submit(None, "hello", job_id="once")
    assert (first.created, again.created, first.id == again.id) == (True, False, True)
    assert await first.result(timeout=10) == await again.result(timeout=10)
    assert (await client.stats(None))["submitted"] == 1


async def test_the_same_id_with_another_request_is_a_conflict(client: Client) -> None:
    """The first stands."""
    await client.submit(None, "hello", job_id="once")
    with pytest.raises(JobConflict, match="once"):
        await client.submit(None, "good bye", job_id="once")


async def test_gather_keeps_length_and_order_and_puts_errors_in_their_place(
    client: Client, worker: CannedWorker
) -> None:
    """Refused before sending, refused by name, failed and answered: each where it was asked."""
    early = await client.submit(None, "early")
    items: list[Any] = [(None, "one"), ("nobody", "x"), {"adapter": None, "prompt": "two", "top_p": 9}, early]
    items += [(None, "fail"), {"adapter": None, "messages": [{"role": "user", "content": "three"}]}, "rubbish"]
    answers = await client.gather(items, timeout=20)
    kinds = [Result, UnknownAdapter, InvalidRequest, Result, JobFailed, Result, InvalidRequest]
    assert [type(answer) for answer in answers] == kinds
    texts = [answer.text for answer in answers if isinstance(answer, Result)]
    assert texts == ["_base heard: one", "_base heard: early", "_base heard: three"]


async def test_gather_waits_for_room_in_the_agents_window(client: Client, worker: CannedWorker) -> None:
    """More requests than an agent may have waiting all get their answers."""
    answers = await client.gather([(None, f"number {n}") for n in range(150)], timeout=30)
    assert [a.text for a in answers if isinstance(a, Result)] == [f"_base heard: number {n}" for n in range(150)]


async def test_a_full_window_refuses_with_its_numbers(client: Client) -> None:
    """submit raises QueueFull; what was accepted stays."""
    jobs = await client.submit_many([(None, "x")] * 100)
    accepted = [job for job in jobs if isinstance(job, JobHandle)]
    refused = [job for job in jobs if isinstance(job, QueueFull)]
    assert (len(accepted), len(refused)) == (64, 36)
    with pytest.raises(QueueFull) as caught:
        await client.submit(None, "x")
    assert (caught.value.scope, caught.value.depth, caught.value.limit) == ("agent", 64, 64)
    assert caught.value.retry_after_s > 0


async def test_gather_says_what_found_no_room_and_what_has_not_ended(client: Client) -> None:
    """After its timeout there is an item for everything; the accepted ones go on."""
    answers = await client.gather([(None, f"number {n}") for n in range(70)], timeout=0.3)
    kinds = [type(answer) for answer in answers]
    assert (kinds[:64], kinds[64:]) == ([ResultTimeout] * 64, [QueueFull] * 6)
    assert (await client.stats(None))["submitted"] == 64


async def test_a_thousand_agents_in_one_process_submit_at_once(client: Client, redis: Redis) -> None:
    """Their jobs leave together, over a few connections."""
    jobs = await asyncio.gather(*(client.submit(None, "x", agent=f"agent-{n}") for n in range(1000)))
    assert len({job.id for job in jobs}) == 1000
    assert (await client.stats(None))["submitted"] == 1000
    assert len(await redis.client_list()) < 10


async def test_submit_with_wait_waits_for_room(redis_url: str, pool_name: str, client: Client) -> None:
    """It returns a handle once the window has drained."""
    await client.submit_many([(None, "x")] * 64)
    waiting = asyncio.create_task(client.submit(None, "patient", wait=True))
    await asyncio.sleep(0.05)
    assert not waiting.done()
    async with serving(redis_url, pool_name):
        assert (await (await waiting).result(timeout=10)).text == "_base heard: patient"


async def test_explain_says_why_a_job_waits(client: Client) -> None:
    """Without a worker, that is the reason."""
    job = await client.submit(None, "hello")
    explanation = await client.explain(job.id)
    assert (explanation.state, explanation.reason) == (JobState.QUEUED, "no_worker")
    assert explanation.message == (await job.explain()).message == "no live worker: none was ever seen"


@pytest.mark.parametrize("ask", ["result", "state", "explain", "cancel"])
async def test_an_unknown_job_is_said_to_be_unknown(client: Client, ask: str) -> None:
    """By every call on it."""
    with pytest.raises(UnknownJob, match=r"0\.nothing|nothing"):
        await getattr(client.get("nothing"), ask)()


@pytest.mark.parametrize(("ttl_h", "error"), [(24, JobLost), (0, ResultExpired)])
async def test_an_own_result_that_is_gone_is_lost_or_has_expired(
    redis_url: str, pool_name: str, client: Client, ttl_h: int, error: type, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was here, so it is not unknown: whether its time can have passed says which. (Heard of so late, its notice is
    no longer believed.)"""
    monkeypatch.setattr(record, "RESULT_TTL_S", ttl_h * 3600)
    monkeypatch.setattr(inbox, "BELIEVED_S", 0.0)
    job = await client.submit(None, "hello")
    async with serving(redis_url, pool_name), Redis.from_url(redis_url) as redis:
        await _until(job, JobState.SUCCEEDED)
        await redis.delete(f"lp:{{{pool_name}/0}}:job:{job.id.partition('.')[2]}")
        with pytest.raises(error) as caught:
            await job.result(timeout=10)
    assert job.id == caught.value.job_id


async def test_a_request_too_large_is_refused_before_it_is_sent(client: Client) -> None:
    """With its size and the limit."""
    with pytest.raises(PayloadTooLarge, match="limit"):
        await client.submit(None, "x" * (1 << 20))


async def test_a_server_that_is_not_there_is_named_with_a_remedy() -> None:
    """The redacted URL and what to do, in one line, soon."""
    with pytest.raises(RedisUnreachable, match=r"redis://me:\*\*\*@127\.0\.0\.1:1.*LORAPOOL_REDIS_URL") as caught:
        async with Client("redis://me:hunter2@127.0.0.1:1"):
            pass
    assert "hunter2" not in str(caught.value)


async def test_a_wrong_password_is_named(redis_url: str) -> None:
    """Not as an unreachable server, and without the password."""
    wrong = redis_url.replace("redis://", "redis://nobody:hunter2@", 1)
    with pytest.raises(RedisAuthFailed, match="password") as caught:
        async with Client(wrong):
            pass
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize("arguments", [{"redis_url": "http://x"}, {"pool": "a b"}, {"agent": "a b"}])
def test_a_client_with_wrong_arguments_is_refused(arguments: dict[str, str]) -> None:
    """InvalidRequest, naming the value."""
    with pytest.raises(InvalidRequest, match=next(iter(arguments.values()))):
        Client(**arguments)


async def test_closing_the_client_wakes_who_waits(redis_url: str, pool_name: str) -> None:
    """Nobody hangs on a client that is gone; the job goes on."""
    async with Client(redis_url, pool=pool_name) as client:
        job = await client.submit(None, "hello")
        waiting = asyncio.create_task(job.result())
        await asyncio.sleep(0.05)
    with pytest.raises(LorapoolError, match="closed"):
        await waiting


async def _until(job: JobHandle, state: JobState) -> None:
    async with asyncio.timeout(10):
        while await job.state() is not state:  # noqa: ASYNC110 - another process changes it
            await asyncio.sleep(0.01)
