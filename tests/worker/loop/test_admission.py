"""What Admission remembers of adapters."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
from redis.asyncio import Redis

from lorapool.shared.catalog.catalog import AdapterRecord, Catalog
from lorapool.shared.codec import encode_job
from lorapool.shared.job import Job
from lorapool.shared.prompt_format import PromptFormat
from lorapool.shared.queue.protocol import ClaimedJob, JobLease
from lorapool.worker.engine.port import Request
from lorapool.worker.loop.admission import INLINE_PAYLOAD_BYTES, Admission
from lorapool.worker.loop.held_jobs import HeldJob, HeldJobs
from lorapool.worker.loop.slow_prompts import SlowPrompts
from lorapool.worker.text.template_process import TemplateEnded
from tests.fake_tokenizer import WordDetokenizer
from tests.fleet import until
from tests.parts import catalog_of

UNUSED: Any = SimpleNamespace(encode=list)  # a tokenizer that nobody asks


async def test_a_version_that_moved_is_found_where_it_is(redis: Redis, monkeypatch: pytest.MonkeyPatch) -> None:
    """Removed, and registered again at another place: a worker that knew it learns of that after a while."""
    catalog = catalog_of(redis, "test")
    asked: list[str] = []
    engine = SimpleNamespace(near=lambda source: asked.append(source.uri))
    admission = Admission(None, engine, None, catalog, UNUSED, max_model_len=8)
    record = AdapterRecord(id="cfo", version="1", digest="d" * 64, uri="file:///old")
    await catalog.register(record)
    await catalog.decide("cfo@1", "ready")
    await admission._know("cfo@1")
    await catalog.remove("cfo@1")
    await catalog.register(record.model_copy(update={"uri": "file:///new"}))
    await catalog.decide("cfo@1", "ready")
    assert "file:///old" == (await admission._know("cfo@1")).uri
    monkeypatch.setattr("lorapool.worker.loop.admission.KNOWN_S", 0.0)
    assert "file:///new" == (await admission._know("cfo@1")).uri
    await admission.prefetch("cfo@1")
    assert ["file:///new"] == asked


async def test_a_version_loaded_before_its_verdict_is_looked_at_again(redis: Redis) -> None:
    """The verdict may tell its prompt format; from then on the record is asked for once."""
    catalog = catalog_of(redis, "test")
    engine = SimpleNamespace(near=lambda _source: None)
    admission = Admission(None, engine, None, catalog, UNUSED, max_model_len=8)
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


class Desk:
    """An admission with its own jobs list, and what became of each job."""

    def __init__(self, encode: Callable[[Job, PromptFormat | None], list[int]], catalog: Any = None) -> None:
        self.jobs = HeldJobs()
        self.entered: list[str] = []
        self.cancelled: list[str] = []
        self.refused: list[tuple[str, str]] = []
        tokenizer: Any = SimpleNamespace(
            encode=encode,
            eos_ids=frozenset(),
            detokenizer=lambda **_: WordDetokenizer(),
            tool_use=lambda *_: None,
        )
        engine: Any = SimpleNamespace(add=self._add, order=lambda work: None)
        self.admission = Admission(self.jobs, engine, self, catalog, tokenizer, max_model_len=8)

    async def admit(self, batch: list[ClaimedJob]) -> None:
        self.jobs.expect(batch)
        await self.admission.admit(batch)

    async def settled(self) -> None:
        await until(lambda: not self.jobs._expected)
        self.jobs.check_integrity()

    async def cancel(self, job: HeldJob) -> None:
        self.cancelled.append(job.job_id)
        self.jobs.end(job)

    async def refuse(self, job: ClaimedJob, error: Exception) -> None:
        self.refused.append((job.job_id, type(error).__name__))

    def drop_lost(self, _ids: object) -> None:
        """Nothing was held before."""

    def _add(self, *requests: Request) -> None:
        self.entered.extend(request.seq_id for request in requests)


async def test_nobody_waits_for_a_long_prompt() -> None:
    """It is made tokens of beside the others and joins later; cancelled meanwhile, no row is spent on it."""
    encoding, go_on = threading.Event(), threading.Event()

    def encode(job: Job, _form: object) -> list[int]:
        if len(job.prompt or "") > INLINE_PAYLOAD_BYTES:
            encoding.set()
            go_on.wait(10)
        return [1]

    desk = Desk(encode)
    long = "x" * (INLINE_PAYLOAD_BYTES + 1)
    await desk.admit([claimed("long", long), claimed("unwanted", long), claimed("short", "x"), claimed("old", "x")])
    assert ["short:1", "old:1"] == desk.entered
    await asyncio.to_thread(encoding.wait, 10)
    assert {JobLease("long", "lease"), JobLease("unwanted", "lease")} <= set(desk.jobs.leases())
    desk.jobs.mark_cancelled(JobLease("unwanted", "lease"))
    desk.jobs.mark_cancelled(JobLease("long", "an older lease"))
    go_on.set()
    await desk.settled()
    assert (["unwanted"], ["short:1", "old:1", "long:1"]) == (desk.cancelled, desk.entered)


async def chats(redis: Redis, template: str, *names: str) -> Catalog:
    """Adapters with a chat template of their own."""
    catalog = catalog_of(redis, "test")
    for name in names:
        await catalog.register(AdapterRecord(id=name, version="1", digest="d" * 64, uri="file:///a"))
        await catalog.decide(f"{name}@1", "ready", facts={"prompt_format": PromptFormat(template=template)})
    return catalog


def chat(job_id: str, ref: str) -> ClaimedJob:
    payload = encode_job(Job.parse(id=job_id, ref=ref, messages=[{"role": "user", "content": "hi"}]))
    return ClaimedJob(job_id, "lease", ref, "d" * 64, "agent", 1, 0, 1, 7, 100, 110, None, payload)


async def test_a_looping_template_blocks_nobody(redis: Redis) -> None:
    """Ten chats whose template never ends: a plain job and another adapter's chat enter at once; the first loop is
    stopped, the other nine fail fast with that reason, and so does the next one."""
    loops, go_on = [], threading.Event()

    def encode(job: Job, form: PromptFormat | None) -> list[int]:
        if job.ref == "loop@1" and job.messages:
            loops.append(job.id)
            go_on.wait(20)
            raise TemplateEnded("it may compute for 5 s, and was stopped: it took too long")
        return [1]

    desk = Desk(encode, await chats(redis, "{{ messages }}", "loop", "cfo"))
    await desk.admit([*(chat(f"loop{n}", "loop@1") for n in range(10)), claimed("plain", "x"), chat("good", "cfo@1")])
    assert ["plain:1"] == desk.entered
    await until(lambda: "good:1" in desk.entered)
    assert 11 == desk.jobs.unfinished() - 1
    go_on.set()
    await desk.settled()
    await desk.admit([chat("late", "loop@1")])
    await desk.settled()
    assert ["loop0"] == loops
    assert [(f"loop{n}", "TemplateEnded") for n in range(10)] + [("late", "TemplateEnded")] == desk.refused
    payload = encode_job(Job.parse(id="prompt", ref="loop@1", prompt="x"))
    await desk.admit([chat("prompt", "loop@1")._replace(payload=payload)])
    assert "prompt:1" == desk.entered[-1]
    await desk.admission.close()


async def test_a_chat_cancelled_before_its_turn_is_not_rendered(redis: Redis) -> None:
    """It waits behind another of its adapter."""
    go_on, rendered = threading.Event(), []

    def encode(job: Job, _form: object) -> list[int]:
        rendered.append(job.id)
        go_on.wait(20)
        return [1]

    desk = Desk(encode, await chats(redis, "{{ messages }}", "cfo"))
    await desk.admit([chat("first", "cfo@1"), chat("unwanted", "cfo@1")])
    desk.jobs.mark_cancelled(JobLease("unwanted", "lease"))
    go_on.set()
    await desk.settled()
    assert (["first"], [("unwanted", "JobCancelled")]) == (rendered, desk.refused)
    await desk.admission.close()


async def test_who_leaves_gives_back_what_was_not_ready(redis: Redis) -> None:
    """Closed in the middle of a rendering: the job is expected still, so that its lease is given back."""
    begun, go_on = threading.Event(), threading.Event()

    def encode(_job: Job, _form: object) -> list[int]:
        begun.set()
        go_on.wait(20)
        return [1]

    desk = Desk(encode, await chats(redis, "{{ messages }}", "cfo"))
    await desk.admit([chat("first", "cfo@1")])
    await asyncio.to_thread(begun.wait, 10)
    await desk.admission.close()
    assert [JobLease("first", "lease")] == desk.jobs.expect_no_more()
    go_on.set()
    assert ([], []) == (desk.entered, desk.refused)


async def test_a_template_that_was_stopped_is_tried_again_after_a_while() -> None:
    """A minute, then two; once it works it is as good as new."""
    now_s, stopped = [0.0], [True]

    def encode(_job: Job, _form: object) -> list[int]:
        if stopped[0]:
            raise TemplateEnded("it took too long")
        return [1]

    prompts = SlowPrompts(encode, clock=lambda: now_s[0])
    job = Job.parse(id="a", ref="cfo@1", messages=[{"role": "user", "content": "hi"}])

    async def ask() -> str:
        try:
            await prompts.foreign("cfo@1", job, PromptFormat(template="x"), lambda: True)
        except TemplateEnded as error:
            return "left alone" if "not tried again" in str(error) else "stopped"
        return "rendered"

    said = []
    for wait_s in (0, 59, 1, 61, 59):
        now_s[0] += wait_s
        said.append(await ask())
    assert ["stopped", "left alone", "stopped", "left alone", "stopped"] == said
    stopped[0] = False
    now_s[0] += 241
    assert ["rendered", "rendered"] == [await ask(), await ask()]
    prompts.close()
