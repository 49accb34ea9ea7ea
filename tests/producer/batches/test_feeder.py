"""Batches fed by one process: every line answered once, in one of two files, whatever the line is."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from redis.asyncio import Redis

from lorapool.producer import Client
from lorapool.producer.batches import asker
from lorapool.producer.batches.batch_run import Pace
from lorapool.producer.client import inbox
from lorapool.shared.batches.batch_record import BatchStatus
from lorapool.shared.server.keys import Keys, PoolKeys
from tests.fleet import until
from tests.producer.batches.conftest import QUICK, Desk, jsonl, line
from tests.producer.canned_worker import CannedWorker, serving


async def test_every_line_is_answered_once(desk: Desk, worker: CannedWorker) -> None:
    """Good ones in the output file, refused and failed ones in the error file, by their own ids, with their cost."""
    asked = [line(f"q{n}", f"question {n}") for n in range(150)]
    bad = [line("odd", None), line("unknown", "hi", model="nobody"), line("fails", "fail now"), line("bug", "crash")]
    async with desk.fed():
        batch = await desk.ended(await desk.batch(jsonl([*asked, *bad])))
    assert (BatchStatus.COMPLETED, 154, 150, 4) == (batch.status, batch.total, batch.completed, batch.failed)
    output, errors = await desk.read(batch.output_file), await desk.read(batch.error_file)
    assert {f"q{n}": f"_base heard: question {n}" for n in range(150)} == {
        each["custom_id"]: each["response"]["body"]["choices"][0]["text"] for each in output
    }
    assert {"odd": 400, "unknown": 500, "fails": 500, "bug": 500} == {
        each["custom_id"]: each["response"]["status_code"] for each in errors
    }
    assert (154, 300 + 4 * 150) == (len({each["id"] for each in [*output, *errors]}), total_tokens(batch))


def total_tokens(batch) -> int:
    return batch.prompt_tokens + batch.completion_tokens


async def test_a_line_may_ask_several_times(desk: Desk, worker: CannedWorker) -> None:
    """Its answer has all of them."""
    async with desk.fed():
        batch = await desk.ended(await desk.batch(jsonl([line("many", "hi", n=3)])))
    [answer] = await desk.read(batch.output_file)
    assert 3 == len(answer["response"]["body"]["choices"])


async def test_nothing_is_left_but_the_files(
    desk: Desk, worker: CannedWorker, location: str, redis: Redis, pool_name: str
) -> None:
    """Parts are gone from the store and from Redis; records of jobs go soon."""
    async with desk.fed():
        batch = await desk.ended(await desk.batch(jsonl([line(f"q{n}") for n in range(20)])))
    left = sorted(str(path.relative_to(location)) for path in everything(location) if path.is_file())
    named = [(await desk.client.files.get(each)).name for each in (batch.input_file, batch.output_file)]
    assert sorted(named) == left
    assert [] == await redis.keys(f"lp:{{{pool_name}}}:batch_*")
    jobs = await redis.keys(f"{Keys(pool_name).prefix}job:*")
    assert 20 == len(jobs)
    assert all([0 < await redis.pttl(key) <= QUICK.keep_s * 1000 for key in jobs])


def everything(location: str) -> list[Path]:
    return list(Path(location).rglob("*"))


async def test_files_are_their_owners_alone(desk: Desk, location: str) -> None:
    """No other user of the machine may read a prompt."""
    await desk.put(b"x")
    for path in [Path(location), *everything(location)]:
        assert 0 == path.stat().st_mode & 0o077


async def test_a_batch_leaves_its_agent_half_the_window(desk: Desk, client: Client) -> None:
    """With no worker there, half of the agent's places on the adapter stay free, whatever waits in the batch."""
    batch = await desk.batch(jsonl([line(f"q{n}") for n in range(200)]))
    async with desk.fed():
        await until(lambda: waits(client, 32))
        await asyncio.sleep(0.2)  # as long as it likes: no more come
        assert (32, 64) == await client.window(None, "ada")
        async with serving_of(client):
            assert 200 == (await desk.ended(batch)).completed


def serving_of(client: Client):
    settings = client._parts.settings
    return serving(settings.redis_url, settings.pool)


async def test_low_priority_jobs_pass_nobody(desk: Desk, client: Client, redis: Redis, pool_name: str) -> None:
    """What a batch asks waits in the streams of low priority, counted under its agent and its key."""
    await client.keys.add("k1", agent="ada")
    await desk.batch(jsonl([line("one")]), key="k1")
    async with desk.fed():
        key = await until(lambda: first(redis, f"{Keys(pool_name).prefix}job:*"))
        stored = {name.decode(): value.decode() for name, value in (await redis.hgetall(key)).items()}
    assert ("low", "ada") == (stored["priority"], stored["agent"])
    assert Keys(pool_name).job(stored_id(key)).endswith("-0-0")


def stored_id(key: bytes) -> str:
    return key.decode().rpartition(":")[2]


async def first(redis: Redis, pattern: str) -> bytes | None:
    return next(iter(await redis.keys(pattern)), None)


async def test_another_goes_on_where_one_stopped(desk: Desk, client: Client, worker: CannedWorker) -> None:
    """Feeders that end one after another, each with work under way: no line is lost, none is answered twice."""
    worker.word_s = 0.002
    batch = await desk.batch(jsonl([line(f"q{n}", f"question {n}") for n in range(300)]))
    done = 0
    for turn in range(4):
        async with desk.fed(name=f"g{turn}"):
            done = await until(lambda done=done: moved_on(client, batch.id, done))
    async with desk.fed():
        ended = await desk.ended(batch)
    assert (300, 0) == (ended.completed, ended.failed)
    assert sorted(f"q{n}" for n in range(300)) == sorted(
        each["custom_id"] for each in await desk.read(ended.output_file)
    )


async def moved_on(client: Client, batch_id: str, done: int) -> int | None:
    batch = await client.batches.get(batch_id)
    return batch.completed if batch.completed > done or batch.status.terminal else None


async def test_two_feeders_share_what_there_is(desk: Desk, worker: CannedWorker) -> None:
    """Each batch is held by one of them; all end."""
    batches = [await desk.batch(jsonl([line(f"q{n}") for n in range(40)]), agent=f"a{k}") for k in range(6)]
    async with desk.fed(name="g1"), desk.fed(name="g2"):
        assert [40] * 6 == [(await desk.ended(batch)).completed for batch in batches]


async def test_a_cancelled_batch_tells_of_every_line(desk: Desk, client: Client) -> None:
    """What was answered stands in its output, jobs that wait are cancelled, the rest is listed as cancelled."""
    batch = await desk.batch(jsonl([line(f"q{n}", "hang" if n else "hi") for n in range(100)]))
    async with desk.fed(), serving_of(client) as worker:
        await until(lambda: moved_on(client, batch.id, 0))
        assert BatchStatus.CANCELLING == await client.batches.cancel(batch.id)
        ended = await desk.ended(batch)
        assert not worker._running
    assert (BatchStatus.CANCELLED, 1, 99) == (ended.status, ended.completed, ended.failed)
    errors = await desk.read(ended.error_file)
    assert {"batch_cancelled"} == {each["error"]["code"] for each in errors}
    assert (99, None) == (len({each["custom_id"] for each in errors}), errors[0]["response"])


async def test_a_batch_that_is_late_expires(desk: Desk, client: Client) -> None:
    """Nobody serves it; when its time is over its lines say so, and no job is left."""
    batch = await desk.batch(jsonl([line(f"q{n}") for n in range(70)]), window_s=1)
    async with desk.fed():
        ended = await desk.ended(batch)
    assert (BatchStatus.EXPIRED, 0, 70) == (ended.status, ended.completed, ended.failed)
    assert {"batch_expired"} == {each["error"]["code"] for each in await desk.read(ended.error_file)}
    assert ended.output_file is None
    assert (0, 64) == await client.window(None, "ada")


async def test_jobs_that_redis_lost_are_asked_again(
    desk: Desk, client: Client, redis: Redis, pool_name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Records vanish while the feeder waits for them; the lines are answered all the same."""
    monkeypatch.setattr(inbox, "AUDIT_S", 0.2)
    batch = await desk.batch(jsonl([line(f"q{n}") for n in range(10)]))
    keys = Keys(pool_name)
    async with desk.fed():
        await until(lambda: waits(client, 10))
        await redis.delete(*await redis.keys(f"{keys.prefix}job:*"), *await redis.keys(f"{keys.prefix}payload:*"))
        async with serving_of(client):
            assert 10 == (await desk.ended(batch)).completed


async def waits(client: Client, number: int) -> bool:
    return (await client.window(None, "ada"))[0] == number


async def test_a_store_that_is_away_is_waited_for(
    desk: Desk, client: Client, worker: CannedWorker, location: str
) -> None:
    """The batch is given back, and says what troubles it; it goes on once its files can be had."""
    batch = await desk.batch(jsonl([line("one")]))
    move(location, f"{location}-away")
    async with desk.fed():
        await until(lambda: troubled(client, batch.id))
        move(f"{location}-away", location)
        await set_fields(client, batch.id, "lease_until_ms", 0)
        assert 1 == (await desk.ended(batch)).completed


def move(old: str, new: str) -> None:
    Path(old).rename(new)


async def troubled(client: Client, batch_id: str) -> bool:
    return "No such file" in (await client.batches.get(batch_id)).trouble


async def test_a_feeder_that_lost_its_lease_writes_nothing(desk: Desk, client: Client, worker: CannedWorker) -> None:
    """Frozen for longer than its lease, then awake beside the one that took over: each line once."""
    batch = await desk.batch(jsonl([line(f"q{n}", f"question {n}") for n in range(120)]))
    slow = Pace(lease_s=0.5, poll_s=0.02, part_s=5.0, at_once=64)  # answers much, and has written nothing yet
    async with desk.fed(slow, name="frozen"):
        await until(lambda: holder_is(client, batch.id, "frozen"))
        await take_from(client, batch.id)
        async with desk.fed(name="next"):
            ended = await desk.ended(batch)
    assert (120, 120) == (ended.completed, len(await desk.read(ended.output_file)))


async def holder_is(client: Client, batch_id: str, name: str) -> bool:
    found = await client.batches.get(batch_id)
    return found.holder == name and found.total > 0


async def take_from(client: Client, batch_id: str) -> None:
    """As if its lease had run out, and another had taken it and gone."""
    await set_fields(client, batch_id, "lease", "", "lease_until_ms", 0, "holder", "")


async def set_fields(client: Client, batch_id: str, *fields: str | int) -> None:
    parts = client._parts
    await parts.connection.server.command("HSET", parts.connection.keys.batch(batch_id), *fields)


async def test_a_quota_that_is_used_up_is_waited_for(
    desk: Desk, client: Client, worker: CannedWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The lines behind it are not failed; once there is room, they are asked."""
    monkeypatch.setattr(asker, "FULL_S", 0.05)
    await client.keys.add("k1", agent="ada", jobs_per_minute=3)
    batch = await desk.batch(jsonl([line(f"q{n}") for n in range(9)]), key="k1")
    async with desk.fed():
        await until(lambda: moved_on(client, batch.id, 2))
        await asyncio.sleep(0.2)  # as long as it likes: no more are answered
        assert (3, 0) == ((now := await client.batches.get(batch.id)).completed, now.failed)
        parts = client._parts
        await parts.connection.server.command("HSET", parts.queue.keys.key("k1"), "jobs_per_minute", 99)
        assert 9 == (await desk.ended(batch)).completed


async def test_a_server_that_comes_back_without_its_last_writes(
    desk: Desk, client: Client, worker: CannedWorker, redis: Redis, pool_name: str
) -> None:
    """What the book has forgotten is asked again; what was written under it stands nowhere. Each line once."""
    worker.word_s = 0.002
    batch = await desk.batch(jsonl([line(f"q{n}", f"question {n}") for n in range(200)]))
    keys = PoolKeys(pool_name)
    names = [keys.batch(batch.id), keys.batch_parts(batch.id), keys.batch_answered(batch.id)]
    async with desk.fed():
        early = await until(lambda: moved_on(client, batch.id, 0))
        async with redis.pipeline(transaction=True) as at_once:
            kept = await at_once.dump(names[0]).dump(names[1]).dump(names[2]).execute()
        await until(lambda: moved_on(client, batch.id, early))
        async with redis.pipeline(transaction=True) as at_once:
            for name, dump in zip(names, kept, strict=True):
                at_once.restore(name, 0, dump, replace=True)
            await at_once.execute()
        ended = await desk.ended(batch)
    output = await desk.read(ended.output_file)
    assert (200, 0) == (ended.completed, ended.failed)
    assert sorted(f"q{n}" for n in range(200)) == sorted(each["custom_id"] for each in output)
