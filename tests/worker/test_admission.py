"""What Admission remembers of adapters."""

from __future__ import annotations

import asyncio
import threading
from types import SimpleNamespace
from typing import Any

import pytest
from redis.asyncio import Redis

from lorapool.shared.catalog import AdapterRecord, Catalog
from lorapool.shared.codec import encode_job
from lorapool.shared.job import Job
from lorapool.shared.prompt_format import PromptFormat
from lorapool.shared.protocol import ClaimedJob, Held
from lorapool.worker.adapters import AdapterCache
from lorapool.worker.admission import INLINE_PAYLOAD_BYTES, Admission
from lorapool.worker.held_jobs import HeldJob, HeldJobs
from lorapool.worker.sequence import Sequence
from tests.fake_runner import FakeStore, WordDetokenizer
from tests.fake_worker import FakeWeights


async def test_a_version_that_moved_is_found_where_it_is(redis: Redis, monkeypatch: pytest.MonkeyPatch) -> None:
    """Removed, and registered again at another place: a worker that knew it learns of that after a while."""
    catalog = Catalog(redis, "test")
    cache = AdapterCache(FakeStore(1), lambda source: FakeWeights(source.digest), 100)
    engine = SimpleNamespace(order=lambda work: work())
    admission = Admission(None, engine, cache, None, catalog, None, max_model_len=8)
    record = AdapterRecord(id="cfo", version="1", digest="d" * 64, uri="file:///old")
    await catalog.register(record)
    await catalog.decide("cfo@1", "ready")
    await admission._know("cfo@1")
    await catalog.remove("cfo@1")
    await catalog.register(record.model_copy(update={"uri": "file:///new"}))
    await catalog.decide("cfo@1", "ready")
    assert "file:///old" == (await admission._know("cfo@1")).uri
    monkeypatch.setattr("lorapool.worker.admission.KNOWN_S", 0.0)
    assert "file:///new" == (await admission._know("cfo@1")).uri
    assert "file:///new" == cache._sources["cfo@1"].uri
    cache.close()


async def test_a_version_loaded_before_its_verdict_is_looked_at_again(redis: Redis) -> None:
    """The verdict may tell its prompt format; from then on the record is asked for once."""
    catalog = Catalog(redis, "test")
    engine = SimpleNamespace(order=lambda _work: None)
    admission = Admission(None, engine, None, None, catalog, None, max_model_len=8)
    await catalog.register(AdapterRecord(id="cfo", version="1", digest="d" * 64, uri="s3://bucket/cfo"))
    await admission.prefetch("cfo@1")
    form = PromptFormat(kind="raw")
    await catalog.decide("cfo@1", "ready", facts={"prompt_format": form})
    assert form == (await admission._know("cfo@1")).prompt_format
    await redis.flushall()
    assert form == (await admission._know("cfo@1")).prompt_format


def claimed(job_id: str, prompt: str) -> ClaimedJob:
    payload = encode_job(Job.parse(id=job_id, ref="_base", prompt=prompt))
    return ClaimedJob(job_id, "lease", "_base", "", "agent", 1, 0, 1, 7, 100, 110, None, payload)


async def test_cancelled_before_it_is_admitted() -> None:
    """A cancellation that comes while the job stands behind a long prompt is not missed: no row is spent on it."""
    jobs, encoding, go_on = HeldJobs(), threading.Event(), threading.Event()
    entered: list[str] = []
    cancelled: list[str] = []

    def encode(job: Job, _form: object) -> list[int]:
        if len(job.prompt or "") > INLINE_PAYLOAD_BYTES:
            encoding.set()
            go_on.wait(10)
        return [1]

    class Publisher:
        async def cancel(self, job: HeldJob) -> None:
            cancelled.append(job.job_id)
            jobs.end(job)

        def drop_lost(self, _ids: object) -> None:
            """Nothing was held before."""

    def add(*sequences: Sequence) -> None:
        entered.extend(sequence.seq_id for sequence in sequences)

    tokenizer: Any = SimpleNamespace(encode=encode, detokenizer=WordDetokenizer)
    engine: Any = SimpleNamespace(add=add)
    publisher: Any = Publisher()
    admission = Admission(jobs, engine, None, publisher, None, tokenizer, max_model_len=8)  # type: ignore[arg-type]
    batch = [claimed("long", "x" * (INLINE_PAYLOAD_BYTES + 1)), claimed("unwanted", "x"), claimed("wanted", "x")]
    jobs.expect(batch)
    admitting = asyncio.create_task(admission.admit(batch))
    await asyncio.to_thread(encoding.wait, 10)
    jobs.recall(Held("unwanted", "lease"))
    jobs.recall(Held("wanted", "an older lease"))
    go_on.set()
    await admitting
    assert (["unwanted"], ["long:1", "wanted:1"]) == (cancelled, entered)
    jobs.check_integrity()
