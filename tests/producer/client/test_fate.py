"""Every error of a submission names its job and says what surely became of it; none waits for ever to do so."""

from __future__ import annotations

import asyncio
import copy
import time
from collections.abc import Callable
from typing import Any

import pytest
from redis.asyncio import Redis

from lorapool.producer import (
    Client,
    ClientClosed,
    Fate,
    ForeignClient,
    InvalidRequest,
    JobConflict,
    JobFailed,
    JobHandle,
    LorapoolError,
    QueueFull,
    RedisUnreachable,
    Result,
    ResultTimeout,
    UnknownAdapter,
)
from lorapool.shared import errors
from tests.conftest import free_port
from tests.producer.canned_worker import CannedWorker

ASKED = {"adapter": None, "prompt": "hello", "job_id": "mine"}


@pytest.mark.parametrize(
    ("change", "kind"),
    [
        ({"temperature": 9}, InvalidRequest),
        ({"prompt": "x" * (1 << 20)}, InvalidRequest),
        ({"adapter": "nobody"}, UnknownAdapter),
        ({"prompt": "another"}, JobConflict),
    ],
)
async def test_a_refusal_names_its_job(client: Client, change: dict[str, Any], kind: type[LorapoolError]) -> None:
    """By ``submit`` as by ``submit_many``; surely nothing was queued."""
    if kind is JobConflict:
        await client.submit(**ASKED)
    with pytest.raises(kind) as caught:
        await client.submit(**ASKED | change)
    [error] = await client.submit_many([ASKED | change])
    assert isinstance(error, kind)
    assert ("0.mine", Fate.NOT_QUEUED) == (caught.value.job_id, caught.value.fate) == (error.job_id, error.fate)


async def test_a_full_window_names_its_job_too(client: Client) -> None:
    """Each of those refused, with an id of its own, which submits that job again."""
    outcomes = await client.submit_many([(None, "x")] * 66)
    refused = [error for error in outcomes if isinstance(error, QueueFull)]
    assert [Fate.NOT_QUEUED] * 2 == [error.fate for error in refused]
    assert f"job {refused[0].job_id} was not queued" in str(refused[0])
    again = await client.submit(None, "x", agent="other", job_id=refused[0].job_id)
    assert refused[0].job_id == again.id


async def test_the_end_of_a_job_names_it_too(client: Client, worker: CannedWorker) -> None:
    """Failed, or not ended in time: it was queued."""
    failing, hanging = await client.submit(None, "fail"), await client.submit(None, "hang")
    failed, late = await client.gather([failing, hanging], timeout=1)
    assert isinstance(failed, JobFailed)
    assert isinstance(late, ResultTimeout)
    assert [(failing.id, Fate.QUEUED), (hanging.id, Fate.QUEUED)] == [(e.job_id, e.fate) for e in (failed, late)]


async def test_a_lost_reply_leaves_it_unknown_and_the_same_id_settles_it(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server did accept the job; the error says how to be sure, and doing so makes no second one."""
    run = client._parts.connection._redis.execute_command

    async def deaf(*command: Any) -> Any:
        await run(*command)
        raise ConnectionResetError("cut off")

    with monkeypatch.context() as patch:
        patch.setattr(client._parts.connection._redis, "execute_command", deaf)
        patch.setattr("lorapool.shared.server.server.PAUSES_S", ())
        with pytest.raises(RedisUnreachable, match="submit it again with job_id=") as caught:
            await client.submit(None, "hello")
    assert Fate.UNKNOWN is caught.value.fate
    again = await client.submit(None, "hello", job_id=caught.value.job_id)
    assert (caught.value.job_id, False) == (again.id, again.created)
    assert 1 == (await client.stats(None))["submitted"]


async def test_a_full_server_after_a_lost_reply_is_no_certainty(
    client: Client, redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first try may have been carried out, whatever the second one was told."""
    run, tries = client._parts.connection._redis.execute_command, []

    async def deaf_then_full(*command: Any) -> Any:
        tries.append(command[0])
        if len(tries) == 1:
            raise ConnectionResetError("cut off")
        await redis.config_set("maxmemory", 1)
        return await run(*command)

    monkeypatch.setattr(client._parts.connection._redis, "execute_command", deaf_then_full)
    with pytest.raises(errors.RedisFull) as caught:
        await client.submit(None, "hello")
    assert Fate.UNKNOWN is caught.value.fate


async def test_a_server_that_is_not_there_has_queued_nothing() -> None:
    """There was nobody to accept it; what was behind it in a long call was not even sent."""
    client = Client(f"redis://127.0.0.1:{free_port()}")
    with pytest.raises(RedisUnreachable, match="was not queued") as caught:
        await client.submit(None, "hello")
    assert Fate.NOT_QUEUED is caught.value.fate
    began = time.monotonic()
    outcomes = await client.submit_many([(("a", "b", None)[n % 3], f"job {n}") for n in range(1000)])
    assert time.monotonic() - began < 10, "it is tried once, not for every job and name"
    assert {1} == {str(outcome).count("was not queued") for outcome in outcomes}
    assert {(RedisUnreachable, Fate.NOT_QUEUED)} == {
        (type(e), e.fate) for e in outcomes if isinstance(e, LorapoolError)
    }
    await client.close()


async def test_what_one_part_met_is_not_the_others(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    """The connection breaks at the second of three parts: the first is accepted, the last surely not."""
    run, parts = client._queue._scripts.run, []

    async def breaking(name: str, *args: Any) -> Any:
        parts.append(name)
        if len(parts) == 2:
            raise RedisUnreachable("cut off")
        return await run(name, *args)

    monkeypatch.setattr(client._queue._scripts, "run", breaking)
    outcomes = await client.submit_many([{"adapter": None, "prompt": f"job {n}", "agent": f"a{n}"} for n in range(192)])
    fates = [True if isinstance(outcome, JobHandle) else outcome.fate for outcome in outcomes]
    assert [True] * 64 + [Fate.UNKNOWN] * 64 + [Fate.NOT_QUEUED] * 64 == fates
    assert ["enqueue", "enqueue"] == parts


# -- close


@pytest.mark.parametrize("turns", [0, 1, 2, 5, 20])
async def test_close_overtakes_submit(redis_url: str, pool_name: str, turns: int) -> None:
    """However far it had come: it has its handle, or an error that names its job."""
    client = await Client(redis_url, pool=pool_name).__aenter__()
    submitting = [asyncio.create_task(client.submit(None, f"x {n}", wait=True)) for n in range(3)]
    for _ in range(turns):
        await asyncio.sleep(0)
    await client.close()
    async with asyncio.timeout(5):
        outcomes = await asyncio.gather(*submitting, return_exceptions=True)
    for outcome in outcomes:
        assert isinstance(outcome, JobHandle | ClientClosed), outcome
        assert isinstance(outcome, JobHandle) or (outcome.job_id and outcome.fate)


async def test_close_overtakes_waiting_for_room(client: Client) -> None:
    """submit(wait=True) on a full window ends soon after the close."""
    await client.submit_many([(None, "x")] * 64)
    waiting = asyncio.create_task(client.submit(None, "patient", wait=True))
    await asyncio.sleep(0.05)
    await client.close()
    with pytest.raises(ClientClosed) as caught:
        await asyncio.wait_for(waiting, 6)
    assert Fate.NOT_QUEUED is caught.value.fate


async def test_close_overtakes_gather_and_result(client: Client) -> None:
    """Who awaits hears of it; in a gather as an item; the jobs go on."""
    job = await client.submit(None, "x")
    waiting = asyncio.create_task(job.result())
    gathering = asyncio.create_task(client.gather([(None, "y"), job]))
    await asyncio.sleep(0.2)
    await asyncio.gather(client.close(), client.close())
    with pytest.raises(ClientClosed, match=r"job .* goes on") as caught:
        await waiting
    assert (job.id, Fate.QUEUED) == (caught.value.job_id, caught.value.fate)
    assert [ClientClosed] * 2 == [type(outcome) for outcome in await gathering]


CALLS: list[Callable[[Client, JobHandle], Any]] = [
    lambda client, _: client.submit(None, "x"),
    lambda client, _: client.backlog(),
    lambda client, _: client.adapters.list(),
    lambda client, _: client.upkeep.dead(),
    lambda client, _: client.schedules.list(),
    lambda _, job: job.result(),
    lambda _, job: job.state(),
    lambda _, job: job.cancel(),
    lambda _, job: anext(job.stream()),
]


@pytest.mark.parametrize("call", CALLS)
async def test_a_closed_client_is_closed_for_every_call(client: Client, call: Callable[..., Any]) -> None:
    """It opens no new connection in silence."""
    job = await client.submit(None, "x", stream=True)
    await client.close()
    with pytest.raises(ClientClosed):
        await asyncio.wait_for(call(client, job), 5)


@pytest.mark.parametrize("call", CALLS)
def test_another_event_loop_is_told_so(redis_url: str, pool_name: str, call: Callable[..., Any]) -> None:
    """With the remedy, at once, whatever is called there."""

    async def first(client: Client) -> JobHandle:
        await client.__aenter__()
        return await client.submit(None, "x", stream=True)

    client = Client(redis_url, pool=pool_name)
    with asyncio.Runner() as home, asyncio.Runner() as elsewhere:
        job = home.run(first(client))
        with pytest.raises(ForeignClient, match="create a client in each loop"):
            elsewhere.run(asyncio.wait_for(call(client, job), 5))
        assert isinstance(home.run(client.submit(None, "y")), JobHandle)
        home.run(client.close())


def test_it_is_closed_where_it_lives(redis_url: str, pool_name: str) -> None:
    """In its own event loop; once that has ended, anywhere."""
    client = Client(redis_url, pool=pool_name)
    with asyncio.Runner() as elsewhere:
        with asyncio.Runner() as home:
            home.run(client.__aenter__())
            with pytest.raises(ForeignClient, match="close it there"):
                elsewhere.run(client.close())
            home.run(client.close())
        other = Client(redis_url, pool=pool_name)
        with asyncio.Runner() as home:
            home.run(other.__aenter__())
            home.run(other._parts.connection._redis.aclose())
        elsewhere.run(other.close())


async def test_gather_takes_handles_of_another_client(
    redis_url: str, pool_name: str, client: Client, worker: CannedWorker
) -> None:
    """Whose notices go elsewhere: they are looked up, and soon."""
    async with Client(redis_url, pool=pool_name) as other:
        jobs = [await other.submit(None, f"x {n}") for n in range(3)]
        answers = await client.gather([*jobs, (None, "own")], timeout=5)
    assert [Result] * 4 == [type(answer) for answer in answers]


async def test_a_server_that_refuses_for_now_has_queued_nothing(client: Client, redis: Redis) -> None:
    """It says so itself; who awaits a job waits on."""
    job = await client.submit(None, "before")
    waiting = asyncio.create_task(job.result())
    await redis.config_set("min-replicas-to-write", 1)
    try:
        with pytest.raises(RedisUnreachable, match="was not queued") as caught:
            await client.submit(None, "hello")
        assert ("NOREPLICAS", Fate.NOT_QUEUED) == (caught.value.code, caught.value.fate)
        assert not waiting.done()
    finally:
        await redis.config_set("min-replicas-to-write", 0)
        waiting.cancel()
    assert (await client.submit(None, "hello", job_id=caught.value.job_id)).created


async def test_a_call_that_the_inbox_fails_keeps_its_other_answers(
    client: Client, worker: CannedWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An error that is no word of ours stands in its items' places; the job that had ended keeps its answer."""
    ended = await client.submit(None, "one")
    await ended.result(timeout=10)

    async def broken(*_: Any) -> Any:
        raise ValueError("unreadable")

    monkeypatch.setattr(client._queue, "inbox", broken)
    first, second = await client.gather([ended, (None, "hang")], timeout=5)
    assert isinstance(first, Result)
    assert isinstance(second, LorapoolError)
    assert "ValueError: unreadable" in str(second)
    assert Fate.QUEUED is second.fate


def test_an_error_can_be_copied_and_sent_whole() -> None:
    """Whatever its constructor asks for: process pools of those who use lorapool send their errors home."""
    error = QueueFull("full", scope="pool", depth=1, limit=1, retry_after_s=0.5).of_job("0.x", Fate.NOT_QUEUED)
    restore, parts = error.__reduce__()[:2]
    for other in (copy.copy(error), restore(*parts)):
        assert (str(error), vars(error), type(error)) == (str(other), vars(other), type(other))
