"""Releases side by side in one pool: what is only more is ignored, what is newer is refused and kept."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from typing import Any

import msgpack
import pytest
from typer.testing import CliRunner

from lorapool.producer.cli import app
from lorapool.producer.client.client import Client
from lorapool.producer.client.stream import Splicer, TextDelta
from lorapool.shared import codec
from lorapool.shared.catalog.catalog import LAYOUT_VERSION, AdapterRecord, Catalog
from lorapool.shared.errors import JobFailed, UnsupportedVersion
from lorapool.shared.job import Job
from lorapool.shared.queue import replies
from lorapool.shared.server.keys import Keys, PoolKeys
from tests.conftest import running_server
from tests.fake_model import expected
from tests.fleet import WorkerProcess, add_adapters, fake_worker, until
from tests.parts import Queue, catalog_of

KEYS, POOL = Keys("default"), PoolKeys("default")
NEWER = codec.VERSION + 1


@pytest.fixture(scope="module")
def redis_url() -> Iterator[str]:
    """A server that all these tests share, each with names of its own; and so one worker is enough."""
    with running_server() as url:
        yield url


@pytest.fixture(scope="module")
def worker(redis_url: str) -> Iterator[WorkerProcess]:
    with fake_worker(redis_url) as worker:
        yield worker
        assert worker.stop() == 0


def newer_client(monkeypatch: pytest.MonkeyPatch, **changes: Any) -> None:
    """Requests are sent as a newer release would."""
    encode = codec.encode_job

    def encoded(job: Job) -> bytes:
        fields = msgpack.unpackb(encode(job))
        for name, value in changes.items():
            fields[name] = {**fields[name], **value} if isinstance(value, dict) else value
        return msgpack.packb(fields)

    monkeypatch.setattr(codec, "encode_job", encoded)


async def lorapool(redis_url: str, *arguments: str) -> str:
    """What the command line prints; in a thread, since it runs an event loop of its own."""
    env = {"LORAPOOL_REDIS_URL": redis_url}
    return (await asyncio.to_thread(CliRunner().invoke, app, arguments, env=env)).stdout


async def test_a_job_of_a_newer_major_is_a_dead_letter(redis_url, redis, pool, monkeypatch):
    """Refused at once with the reason, its request kept for a newer worker; `lorapool dead` shows it."""
    newer_client(monkeypatch, v=NEWER)
    with pytest.raises(JobFailed, match=f"schema version {NEWER}, this release reads up to {codec.VERSION}") as failed:
        await (await pool.submit(None, "hello", job_id="new")).result(10)
    assert ("UnsupportedVersion", 1) == (failed.value.error, failed.value.attempts)
    assert NEWER == msgpack.unpackb(await redis.get(KEYS.payload("new")))["v"]
    letters = {letter["job_id"]: letter for letter in json.loads(await lorapool(redis_url, "dead", "--json"))}
    letter = letters["0.new"]
    assert "UnsupportedVersion" == letter["reason"]
    assert f"schema version {NEWER}" in letter["message"]
    assert f"schema version {NEWER}" in await lorapool(redis_url, "dead")


async def test_such_a_job_is_served_by_an_upgraded_worker(redis, pool, monkeypatch):
    """Redriven, its request is as it was sent."""
    with monkeypatch.context() as newer:
        newer_client(newer, v=NEWER)
        with pytest.raises(JobFailed):
            await (await pool.submit(None, "hello", job_id="upgraded", max_new_tokens=3)).result(10)
    await redis.set(KEYS.payload("upgraded"), codec.encode_job(Job.parse(  # what an upgraded worker reads
        id="upgraded", ref="_base", prompt="hello", params={"max_new_tokens": 3})), keepttl=True)  # fmt: skip
    again = await Queue(redis, KEYS.pool).redrive("upgraded")
    assert expected("hello", "", 3) == (await pool.get(again.job_id).result(10)).token_ids


async def test_what_a_newer_minor_adds_is_ignored(pool, monkeypatch):
    """Unknown fields of a request and of its params: the job is answered as if they were not there."""
    newer_client(monkeypatch, colour="blue", params={"mood": 1, "max_new_tokens": 4})
    result = await (await pool.submit(None, "hello", max_new_tokens=4)).result(10)
    assert expected("hello", "", 4) == result.token_ids


async def test_a_newer_result_is_read_by_an_older_client(redis, pool):
    """Fields of its record and of its details that nobody knows here change nothing; a newer major is told."""
    job = await pool.submit(None, "hello", max_new_tokens=4)
    first = await job.result(10)
    detail = msgpack.unpackb(await redis.hget(KEYS.job(job.id), "detail"))
    await redis.hset(KEYS.job(job.id), mapping={"colour": "blue", "detail": msgpack.packb({**detail, "mood": 1})})
    async with Client(str(pool._parts.settings.redis_url.get_secret_value())) as other:
        assert first == await other.get(job.id).result(5)
    await redis.hset(KEYS.job(job.id), "detail", msgpack.packb({**detail, "v": NEWER}))
    async with Client(str(pool._parts.settings.redis_url.get_secret_value())) as other:
        with pytest.raises(UnsupportedVersion, match=f"schema version {NEWER}"):
            await other.get(job.id).result(5)


async def test_what_a_newer_catalog_adds_is_ignored(redis, pool):
    """An adapter whose record has fields that nobody knows here is served; so is a pool whose config has."""
    digests = await add_adapters(redis, "minor")
    await redis.hset(POOL.adapter("minor@1"), "licence", "MIT")
    await redis.hset(POOL.config, "colour", "blue")
    result = await (await pool.submit("minor", "hello", max_new_tokens=4)).result(10)
    assert expected("hello", digests["minor@1"], 4) == result.token_ids


CHANGES = {"version": {"v": "2"}, "status": {"status": "simmering"}, "garbage": {"aliases": b"\xff", "rank": "four"}}


async def test_newer_adapters_harm_no_other(redis, pool, worker):
    """Records that cannot be read are left out, by the worker's validator too; a job of one is a dead letter."""
    catalog = catalog_of(redis, "default")
    await add_adapters(redis, *CHANGES, "good")
    for name, change in CHANGES.items():
        await redis.hset(POOL.adapter(f"{name}@1"), mapping=change)
        await redis.sadd(POOL.pending, f"{name}@1")
    await catalog.register(AdapterRecord(id="late", version="1", digest="c" * 64, uri="file:///late"))
    await until(lambda: _ready(catalog, "late@1"))
    listed = {record.id for record in await pool.adapters.list()}
    assert ({"good", "late"}, set()) == (listed & {"good", "late"}, listed & CHANGES.keys())
    for name in CHANGES:
        with pytest.raises(UnsupportedVersion, match=f"{name}@1"):
            await pool.submit(name, "hello")
        await pool._queue.enqueue(Job.parse(id=name, ref=f"{name}@1", prompt="hello"))  # resolved before it changed
        with pytest.raises(JobFailed, match=f"{name}@1") as failed:
            await pool.get(name).result(10)
        assert ("UnsupportedVersion", 1) == (failed.value.error, failed.value.attempts)
    await (await pool.submit("good", "hello", max_new_tokens=2)).result(10)
    assert worker.process.poll() is None


async def _ready(catalog: Catalog, ref: str) -> bool:
    return (await catalog.get(ref)).status == "ready"


async def test_a_request_of_a_newer_operator_is_passed_over(pool, worker, redis):
    """A control request that the worker does not know is logged; the next one is heeded."""
    await Queue(redis).requests.send(worker.name, {"op": "dance", "steps": "7"})
    await until(lambda: worker.events("malformed, stepped over"))
    assert expected("hello", "", 2) == (await (await pool.submit(None, "hello", max_new_tokens=2)).result(10)).token_ids


async def test_a_pool_of_a_newer_layout_is_refused(redis_url, redis):
    """A worker of an older layout does not start: it would not know the keys."""
    fields = {
        "base_model": "fake",
        "revision": "",
        "digest": "0" * 64,
        "dtype": "float32",
        "partitions": 1,
        "layout": LAYOUT_VERSION + 1,
    }
    await redis.hset(PoolKeys("newer").config, mapping=fields)
    with fake_worker(redis_url, pool="newer") as worker:
        assert 0 != worker.wait()
        assert f"layout {LAYOUT_VERSION + 1}" in worker.log()


def test_stream_entries_of_a_newer_kind_are_passed_over():
    """A streamed job's reader takes what it knows."""
    splicer = Splicer()
    sent = [{"kind": "mood", "attempt": 1}, {"kind": "delta", "attempt": 1, "offset": 0, "text": "a", "colour": "blue"}]
    items = [replies.token_item("1-0", {k: str(v).encode() for k, v in fields.items()}) for fields in sent]
    assert [None, TextDelta("a")] == [splicer.take(item) for item in items]
