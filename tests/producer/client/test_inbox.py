"""Inbox: what awaiting costs, and that no answer is missed when a notice is."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest
from redis.asyncio import Redis

from lorapool.producer import Client, JobHandle, JobLost, JobState, RedisUnreachable, Result
from lorapool.producer.client import inbox
from lorapool.producer.client.ticket import Ticket
from tests.fleet import until
from tests.machine import Meanwhile
from tests.producer.canned_worker import CannedWorker, serving

OBSERVED_S = 10.5  # holds one audit


async def test_awaiting_500_jobs_costs_less_than_a_command_a_second(
    redis_url: str, pool_name: str, client: Client, redis: Redis
) -> None:
    """Counted by the server over more than a full audit, scripts' inner commands included; then all are answered."""
    jobs = await client.submit_many([{"adapter": None, "prompt": "x", "agent": f"a{n // 50}"} for n in range(500)])
    assert all(isinstance(job, JobHandle) for job in jobs)
    waiting = [asyncio.create_task(job.result()) for job in jobs if isinstance(job, JobHandle)]
    await asyncio.sleep(0.3)
    await client._parts.queue.states([jobs[0].id])  # from now on the server knows the audit's script
    await redis.config_resetstat()
    await asyncio.sleep(OBSERVED_S)
    calls = await _calls(redis)
    client._inbox.check_integrity()
    print(f"{sum(calls.values()) / OBSERVED_S:.2f} commands/s for 500 awaited jobs: {calls}")
    assert sum(calls.values()) < OBSERVED_S, calls
    async with serving(redis_url, pool_name), asyncio.timeout(20):
        results = await asyncio.gather(*waiting)
    assert [result.job_id for result in results] == [job.id for job in jobs if isinstance(job, JobHandle)]


async def test_an_answer_comes_within_milliseconds_of_its_end(client: Client, worker: CannedWorker) -> None:
    """Event-driven: nobody looks for an answer again and again, so that the median round trip of a job stays below the
    shortest interval at which anything is looked up, also on a busy machine."""
    await (await client.submit(None, "warm up")).result(timeout=10)
    took, meanwhile = [], Meanwhile()
    for n in range(30):
        began = time.monotonic()
        await (await client.submit(None, f"n {n}")).result(timeout=10)
        took.append(time.monotonic() - began)
    assert sorted(took)[len(took) // 2] < 0.05 * meanwhile.slowdown()


async def test_nobody_waiting_costs_nothing(client: Client, worker: CannedWorker) -> None:
    """Reader and sweeper end with the last waiter."""
    await (await client.submit(None, "x")).result(timeout=10)
    await asyncio.sleep(0.05)
    assert client._inbox._open == {}
    assert client._inbox._sweeper is not None
    assert client._inbox._sweeper.done()


async def test_trimmed_notices_are_made_up_for(
    redis_url: str, pool_name: str, client: Client, redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The stream says how many notices there were; a reader that got fewer looks every open job up."""
    monkeypatch.setattr(inbox, "AUDIT_S", 0.1)
    monkeypatch.setattr(inbox, "AUDIT_SAMPLE", 0)
    jobs = [await client.submit(None, f"n {n}") for n in range(10)]
    async with serving(redis_url, pool_name):
        await _all_ended(jobs)
        await redis.xtrim(f"lp:{{{pool_name}/0}}:inbox:{client._name}", maxlen=0, approximate=False)
        answers = await client.gather(jobs, timeout=5)
    assert all(isinstance(answer, Result) for answer in answers), answers


async def test_a_lost_inbox_is_made_up_for(
    redis_url: str, pool_name: str, client: Client, redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Even if it vanished whole, the few that are looked up every round come to be all."""
    monkeypatch.setattr(inbox, "AUDIT_S", 0.05)
    jobs = [await client.submit(None, f"n {n}") for n in range(10)]
    async with serving(redis_url, pool_name):
        await _all_ended(jobs)
        await redis.delete(f"lp:{{{pool_name}/0}}:inbox:{client._name}")
        answers = await client.gather(jobs, timeout=5)
    assert all(isinstance(answer, Result) for answer in answers), answers


async def test_a_doubt_during_a_look_is_kept(
    redis_url: str, pool_name: str, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A job ends, and its notice is lost, after the server has said that it waits and before the client hears that."""
    states, heard = client._queue.states, 0

    async def late(ids: Any) -> Any:
        nonlocal heard
        answer = await states(ids)
        heard += 1
        if heard == 1:
            async with serving(redis_url, pool_name):
                await until(lambda: _has_ended(states, ids))
            client._inbox._doubt()
        return answer

    monkeypatch.setattr(inbox, "AUDIT_S", 1000.0)
    monkeypatch.setattr(client._queue, "inbox", lambda *_: asyncio.sleep(1000))
    monkeypatch.setattr(client._queue, "states", late)
    job = await client.submit(None, "one")
    waiting = asyncio.create_task(job.result(timeout=20))
    await asyncio.sleep(0)
    client._inbox._doubt()
    assert "_base heard: one" == (await waiting).text


async def _has_ended(states: Any, ids: Any) -> bool:
    return all(state.terminal for state in await states(ids))


async def test_whoever_was_not_looked_up_for_longest_is_next(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many jobs come and go beside one that was looked up before: the audit comes to it again."""
    own_inbox = client._inbox
    old = Ticket("old", own=True, deadline_at=None)
    inbox._schedule(old, time.monotonic())
    own_inbox._open["old"] = old
    for n in range(20):
        for ticket in [Ticket(f"new {n} {m}", own=True, deadline_at=None) for m in range(5)]:
            own_inbox._open[ticket.job_id] = ticket
        await own_inbox._audit()
        for job_id in [ticket.job_id for ticket in own_inbox._open.values() if ticket.due == 0.0]:
            del own_inbox._open[job_id]
    assert "old" not in own_inbox._open
    own_inbox._open.clear()


async def test_an_audit_takes_its_share_of_many(client: Client) -> None:
    """A hundredth of them, so that all are looked up within as many rounds, however many they are."""
    own_inbox = client._inbox
    own_inbox._open.update({f"job {n}": Ticket(f"job {n}", own=True, deadline_at=None) for n in range(1000)})
    await own_inbox._audit()
    assert 10 == sum(ticket.due == 0.0 for ticket in own_inbox._open.values())
    own_inbox._open.clear()


async def test_a_notice_that_overtakes_the_reply_is_not_missed(
    client: Client, worker: CannedWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker may answer before the client has heard that the job was accepted."""
    held = asyncio.create_task((await client.submit(None, "hang")).result())
    enqueue_many = client._queue.enqueue_many

    async def slow(jobs: Any) -> Any:
        outcomes = await enqueue_many(jobs)
        await asyncio.sleep(0.3)
        return outcomes

    monkeypatch.setattr(client._queue, "enqueue_many", slow)
    one = await client.submit(None, "one")
    assert (await one.result(timeout=2)).text == "_base heard: one"
    [many] = await client.gather([(None, "two")], timeout=2)
    assert isinstance(many, Result), many
    held.cancel()
    await asyncio.wait([held])


async def test_an_overdue_job_that_is_gone_hurts_no_other(
    redis_url: str, pool_name: str, client: Client, redis: Redis
) -> None:
    """Its own awaiter hears that it is gone; the others go on waiting."""
    doomed, other = await client.submit(None, "x", deadline=0.3, job_id="doomed"), await client.submit(None, "y")
    waiting = [asyncio.create_task(job.result(timeout=8)) for job in (doomed, other)]
    await redis.delete(f"lp:{{{pool_name}/0}}:job:doomed")
    with pytest.raises(JobLost):
        await waiting[0]
    async with serving(redis_url, pool_name):
        assert (await waiting[1]).text == "_base heard: y"


async def test_cut_connections_are_survived(redis_url: str, pool_name: str, client: Client, redis: Redis) -> None:
    """Every connection is killed while a result and a stream are waited for; both come."""
    job = await client.submit(None, "slow words", stream=True)
    waiting = asyncio.create_task(job.result(timeout=8))
    streaming = asyncio.create_task(_text(job))
    await asyncio.sleep(0.2)
    await redis.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
    async with serving(redis_url, pool_name):
        assert (await waiting).text == await streaming == "_base heard: slow words"


async def test_a_stream_outlasts_the_server_whatever_it_asks(
    client: Client, worker: CannedWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each of a stream's calls meets a server that is away; the reader sees the text and no error."""

    def away_once(name: str, then: object = None) -> None:
        call, answers = getattr(client._queue, name), [RedisUnreachable("away"), then]

        async def meets(*arguments: Any) -> Any:
            answer = answers.pop(0) if answers else None
            if isinstance(answer, Exception):
                raise answer
            return await call(*arguments) if answer is None else answer

        monkeypatch.setattr(client._queue, name, meets)

    mine = await client.submit(None, "a b", stream=True)
    for name, then in (("get", None), ("tokens", []), ("states", None)):  # no items: it asks for the state
        away_once(name, then)
    assert "_base heard: a b" == await _text(client.get(mine.id))


async def test_after_an_outage_open_jobs_are_looked_up_at_once(
    redis_url: str, pool_name: str, client: Client, redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The notice was written and lost while the client was cut off; no audit is waited for."""
    over, read = asyncio.Event(), client._queue.inbox

    async def cut_off(*arguments: Any) -> Any:
        if not over.is_set():
            await over.wait()
            raise RedisUnreachable("cut off")
        return await read(*arguments)

    monkeypatch.setattr(client._queue, "inbox", cut_off)
    job = await client.submit(None, "x")
    waiting = asyncio.create_task(job.result(timeout=4))
    async with serving(redis_url, pool_name):
        await _all_ended([job])
    await redis.delete(f"lp:{{{pool_name}/0}}:inbox:{client._name}")
    over.set()
    assert (await waiting).text == "_base heard: x"


async def test_a_notice_heard_late_is_only_a_hint(
    redis_url: str, pool_name: str, client: Client, redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By then its id may be another job's: the record is asked, which does not know of an end."""
    monkeypatch.setattr(inbox, "BELIEVED_S", 0.0)
    job = await client.submit(None, "x", job_id="again")
    async with serving(redis_url, pool_name):
        await _all_ended([job])
    await redis.delete(f"lp:{{{pool_name}/0}}:job:again")
    second = await client.submit(None, "y", job_id="again")
    waiting = asyncio.create_task(second.result(timeout=8))
    await asyncio.sleep(0.2)
    assert not waiting.done()
    async with serving(redis_url, pool_name):
        assert (await waiting).text == "_base heard: y"


async def test_a_client_that_polls_hears_within_half_a_second(
    redis_url: str, pool_name: str, client: Client, worker: CannedWorker
) -> None:
    """Another client's job has no notice here; it is looked up, ever less often, in one call for all."""
    async with Client(redis_url, pool=pool_name) as other:
        job = other.get((await client.submit(None, "x", delay=1.0)).id)
        result = await job.result(timeout=10)
    assert result.text == "_base heard: x"


async def _text(job: JobHandle) -> str:
    return "".join([delta.text async for delta in job.stream(timeout=8)])


async def _all_ended(jobs: list[JobHandle]) -> None:
    async with asyncio.timeout(10):
        for job in jobs:
            while await job.state() is not JobState.SUCCEEDED:  # noqa: ASYNC110 - the worker changes it
                await asyncio.sleep(0.01)


async def _calls(redis: Redis) -> dict[str, int]:
    stats: dict[str, Any] = await redis.info("commandstats")
    ours = {name.removeprefix("cmdstat_"): int(fields["calls"]) for name, fields in stats.items()}
    return {name: calls for name, calls in ours.items() if name not in ("info", "config|resetstat")}
