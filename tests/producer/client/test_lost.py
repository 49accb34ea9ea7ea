"""A job that the server lost: its awaiter hears so soon, or the job is submitted again where that was asked for."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest
from redis.asyncio import Redis

from lorapool.producer import (
    Client,
    Fate,
    InvalidRequest,
    JobExpired,
    JobHandle,
    JobLost,
    LorapoolError,
    Result,
)
from lorapool.producer.client import inbox, resubmission
from tests.conftest import free_port, running_server
from tests.machine import Meanwhile
from tests.producer.canned_worker import serving


async def text_of(job: JobHandle) -> str:
    """What a reader has at the end, who heeds ``restart``."""
    text = ""
    async for delta in job.stream(timeout=20):
        text = delta.text if delta.restart else text + delta.text
    return text


async def test_after_a_restart_without_data_every_awaiter_hears_of_it_soon() -> None:
    """Results, gathers and streams, within a few seconds of the server's return, each with its job's id."""
    port = free_port()
    with running_server(port=port) as url:
        client = await Client(url).__aenter__()
        jobs = [await client.submit(None, f"job {n}", stream=True, agent=f"a{n}") for n in range(100)]
        waiting = [asyncio.create_task(job.result()) for job in jobs[:50]]
        streaming = [asyncio.create_task(text_of(job)) for job in jobs[50:]]
        await asyncio.sleep(0.2)
    with running_server(port=port):
        meanwhile, began = Meanwhile(), time.monotonic()
        async with asyncio.timeout(40):
            outcomes = await asyncio.gather(*waiting, *streaming, return_exceptions=True)
        assert time.monotonic() - began < 8 * meanwhile.slowdown()
        assert [JobLost] * 100 == [type(outcome) for outcome in outcomes]
        assert [job.id for job in jobs] == [error.job_id for error in outcomes if isinstance(error, LorapoolError)]
        late = await client.gather(jobs, timeout=5)  # nobody waited for them meanwhile
        assert [JobLost] * 100 == [type(outcome) for outcome in late]
        await client.close()


async def test_after_a_restart_without_data_jobs_are_submitted_again() -> None:
    """By the same ids, once each, and streams begin again; it costs no answer."""
    port = free_port()
    with running_server(port=port) as url:
        client = await Client(url).__aenter__()
        asked: list[Any] = [{"adapter": None, "prompt": f"job {n}", "agent": f"a{n}"} for n in range(100)]
        gathering = asyncio.create_task(client.gather(asked, timeout=30, on_lost="resubmit"))
        job = await client.submit(None, "a b c d", stream=True, on_lost="resubmit")
        streaming = [asyncio.create_task(text_of(job)) for _ in range(2)]
        waiting = asyncio.create_task(job.result(timeout=30))
        await asyncio.sleep(0.2)
    with running_server(port=port) as url:
        async with serving(url, "default"):
            answers = await gathering
            texts = await asyncio.gather(*streaming)
            answer = await waiting
    assert [f"_base heard: job {n}" for n in range(100)] == [a.text for a in answers if isinstance(a, Result)]
    assert [answer.text] * 2 == texts == ["_base heard: a b c d"] * 2
    assert job.id == answer.job_id
    await client.close()


async def test_a_stream_that_had_begun_begins_again(redis_url: str, pool_name: str, redis: Redis) -> None:
    """Its job runs anew from its first token; what was read already is not read twice."""
    async with Client(redis_url, pool=pool_name) as client:
        async with serving(redis_url, pool_name, name="first", word_s=0.1):
            job = await client.submit(None, "a b c d e f", stream=True, on_lost="resubmit")
            stream = job.stream(timeout=20)
            got = [(await anext(stream)).text for _ in range(3)]
        await redis.flushall()
        async with serving(redis_url, pool_name, name="second"):
            got += [delta.text async for delta in stream]
        assert "_base heard: a b c d e f" == "".join(got)
        assert 1 == job.ticket.losses


async def test_an_emptied_server_is_noticed_by_the_audit(
    client: Client, redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No connection broke: a sample is missed, and then all are looked up."""
    monkeypatch.setattr(inbox, "AUDIT_S", 0.5)
    monkeypatch.setattr(inbox, "UNHEARD_S", 0.0)
    jobs = [await client.submit(None, f"job {n}") for n in range(50)]
    gathering = asyncio.create_task(client.gather(jobs))
    await asyncio.sleep(0.05)
    await redis.flushall()
    began = time.monotonic()
    assert [JobLost] * 50 == [type(outcome) for outcome in await asyncio.wait_for(gathering, 60)]
    assert time.monotonic() - began < 10, "two at a time take 12 s"


async def test_a_job_is_submitted_again_three_times_at_most(client: Client, redis: Redis, pool_name: str) -> None:
    """A server that loses it each time is not asked for ever."""
    job = await client.submit(None, "x", stream=True, on_lost="resubmit")
    for losses in range(resubmission.MAX_LOSSES):
        await redis.delete(f"lp:{{{pool_name}/0}}:job:{job.id[2:]}")
        await client._inbox.revive(job.ticket)
        assert (losses + 1, True) == (job.ticket.losses, await redis.exists(f"lp:{{{pool_name}/0}}:job:{job.id[2:]}"))
    await client._inbox.revive(job.ticket)  # it is there: nothing was lost
    assert resubmission.MAX_LOSSES == job.ticket.losses
    await redis.delete(f"lp:{{{pool_name}/0}}:job:{job.id[2:]}")
    with pytest.raises(JobLost, match="4 times") as caught:
        await client._inbox.revive(job.ticket)
    assert (job.id, Fate.NOT_QUEUED) == (caught.value.job_id, caught.value.fate)


async def test_its_deadline_counts_from_the_first_time(client: Client, redis: Redis) -> None:
    """A job submitted again does not get its time anew."""
    soon = await client.submit(None, "x", deadline=0.3, on_lost="resubmit")
    later = await client.submit(None, "x", deadline=60, delay=30, on_lost="resubmit")
    await redis.flushall()
    await asyncio.sleep(0.4)
    with pytest.raises(JobExpired, match="lost"):
        await client._inbox.revive(soon.ticket)
    await client._inbox.revive(later.ticket)
    record = await later.record()
    left_ms = int(record["deadline_ms"]) - int(record["submitted_ms"])
    assert 50_000 < left_ms < 59_700
    assert "delayed" == record["state"]


async def test_an_adapter_that_is_gone_as_well_is_said_to_be(client: Client, redis: Redis) -> None:
    """What stands against submitting it again is the end, with its reason."""
    await client._operators.open_adapter("cfo@1.0.0", "d" * 64)
    job = await client.submit(None, "x", on_lost="resubmit")
    assert job.ticket.copy is not None
    lost = job.ticket.copy.job.model_copy(update={"ref": "cfo@1.0.0"})
    job.ticket.copy = type(job.ticket.copy)(lost)
    await redis.flushall()
    with pytest.raises(JobLost, match=r"does not take it again: adapter cfo@1\.0\.0"):
        await client._inbox.revive(job.ticket)


async def test_what_to_do_is_checked(client: Client) -> None:
    """Two words are known; on an item, and of the whole call."""
    with pytest.raises(InvalidRequest, match='expected "raise" or "resubmit"'):
        await client.submit(None, "x", on_lost="again")
    with pytest.raises(InvalidRequest, match="on_lost"):
        await client.gather([(None, "x")], on_lost="again")
    [error] = await client.submit_many([{"adapter": None, "prompt": "x", "on_lost": "again"}])
    assert isinstance(error, InvalidRequest)


async def test_requests_are_kept_only_where_that_was_asked_for(client: Client) -> None:
    """Memory is the caller's."""
    kept, plain = await client.submit_many([{"adapter": None, "prompt": "x", "on_lost": "resubmit"}, (None, "x")])
    assert isinstance(kept, JobHandle)
    assert isinstance(plain, JobHandle)
    assert (True, True) == (kept.ticket.copy is not None, plain.ticket.copy is None)
