"""Admission: a claimed job becomes a sequence of the engine, or is refused with a reason.

Decodes the request, finds the adapter's record, makes token ids. Knows what can be wrong with a single job before it
runs; nothing of batches. Long prompts, and chats by an adapter's own template, are made tokens of off the event loop:
no other job waits for them, and their leases are renewed meanwhile.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Protocol

import structlog

from lorapool.shared.catalog.catalog import AdapterRecord, Catalog
from lorapool.shared.codec import decode_job
from lorapool.shared.errors import AdapterConflict, AdapterRefused, InvalidRequest, LorapoolError
from lorapool.shared.job import BASE_REF, Job
from lorapool.shared.prompt_format import PromptFormat
from lorapool.shared.queue.protocol import ClaimedJob
from lorapool.shared.server.redis_retry import retry
from lorapool.shared.tasks import cancel_and_wait
from lorapool.worker.engine.adapter_source import AdapterSource
from lorapool.worker.engine.port import AsyncEngine, Request
from lorapool.worker.loop.answer_forms import AnswerForms
from lorapool.worker.loop.held_jobs import HeldJob, HeldJobs
from lorapool.worker.loop.sampling import resolve
from lorapool.worker.loop.settler import Settler
from lorapool.worker.loop.slow_prompts import SlowPrompts
from lorapool.worker.text.answer import Answer, Detokenizer
from lorapool.worker.text.grammar import grammar_of
from lorapool.worker.text.told_tokens import Spelling, ToldTokens
from lorapool.worker.text.tool_use import ToolUse

log = structlog.get_logger()

KNOWN_S = 60.0  # a version is immutable, but removed and registered again it may lie elsewhere
INLINE_PAYLOAD_BYTES = 16_384  # longer requests take time


class Tokenizer(Protocol):
    """What turns requests into token ids, and ids into text. ``eos_ids``: every token that ends an answer;
    ``spelling``: each token's bytes."""

    @property
    def eos_ids(self) -> frozenset[int]: ...
    def encode(self, job: Job, form: PromptFormat | None = None) -> list[int]: ...
    def detokenizer(self, *, tools: bool = False) -> Detokenizer:
        """A new answer's; with ``tools`` marks of their calls are part of the text."""
        ...

    def tool_use(self, job: Job, job_id: str, form: PromptFormat | None = None) -> ToolUse | None:
        """What the job's tools ask of its answer; None where it may call none."""
        ...

    @property
    def spelling(self) -> Spelling: ...


class PromptTooLong(InvalidRequest):
    """The prompt leaves no room for a single new token in the context."""


@dataclass(frozen=True, slots=True)
class _Read:
    """A claimed job, read. ``form``: how its adapter wants messages written; ``source``: where that comes from."""

    claimed: ClaimedJob
    job: Job
    form: PromptFormat | None
    source: AdapterSource | None

    @property
    def is_foreign(self) -> bool:
        """Written by a program that came with the adapter."""
        return self.job.messages is not None and self.form is not None and bool(self.form.template)

    @property
    def is_slow(self) -> bool:
        asks_for_form = self.job.response_format is not None or bool(self.job.tools)
        return self.is_foreign or asks_for_form or len(self.claimed.payload) > INLINE_PAYLOAD_BYTES

    @property
    def schema(self) -> str | None:
        """What the whole answer is to fit."""
        form = self.job.response_format
        return form.value if form is not None and form.kind == "json_schema" else None


class Admission:
    """Admits claimed jobs in the order they were claimed, but for those that take time."""

    def __init__(
        self,
        jobs: HeldJobs,
        engine: AsyncEngine,
        settler: Settler,
        catalog: Catalog,
        tokenizer: Tokenizer,
        max_model_len: int,
        forms: AnswerForms | None = None,
    ) -> None:
        self._forms = forms or AnswerForms(None)
        self._jobs, self._engine, self._settler = jobs, engine, settler
        self._catalog, self._tokenizer, self._max_model_len = catalog, tokenizer, max_model_len
        self._slow = SlowPrompts(tokenizer.encode)
        self._slow_ones: set[asyncio.Task[None]] = set()
        self._known: dict[str, tuple[float, AdapterRecord]] = {}  # since when, by the monotonic clock

    async def admit(self, claimed: Iterable[ClaimedJob]) -> None:
        """Hand the expected jobs to the engine, together; settle those that cannot run.

        What takes time joins when it is ready, and nobody waits for it: until then it stays expected.
        """
        admitted: list[HeldJob] = []
        for job in claimed:
            async with self._or_refused(job):
                read = await self._look(job)
                if read.is_slow:
                    self._begin(read)
                else:
                    ids = self._tokenizer.encode(read.job, read.form)
                    admitted.append(await self._enter(read, ids))
        self._hand_over(admitted)

    async def close(self) -> None:
        """Begin nothing more; what was not ready stays expected, to be given back."""
        await cancel_and_wait(*tuple(self._slow_ones))
        self._slow.close()

    def _begin(self, read: _Read) -> None:
        self._slow_ones.add(task := asyncio.create_task(self._admit_later(read)))
        task.add_done_callback(self._slow_ones.discard)

    async def _admit_later(self, read: _Read) -> None:
        claimed, form = read.claimed, read.form
        async with self._or_refused(claimed):
            if form is None or not read.is_foreign:
                ids = await self._slow.long(read.job, form)
            else:
                ids = await self._slow.foreign(
                    claimed.ref, read.job, form, lambda: not self._jobs.is_cancelled(claimed)
                )
            self._hand_over([await self._enter(read, ids)])

    @asynccontextmanager
    async def _or_refused(self, claimed: ClaimedJob) -> AsyncIterator[None]:
        """What goes wrong within is that job's end. A cancellation is not: the job stays expected."""
        try:
            yield
        except Exception as error:  # noqa: BLE001  a job that nobody thought of must not take the worker down
            try:
                await self._settler.refuse(claimed, error)
            finally:
                self._jobs.admitted(claimed)

    def _hand_over(self, admitted: Iterable[HeldJob]) -> None:
        """To the engine, but for those cancelled by now."""
        if requests := [job.request for job in admitted if not job.ended]:
            self._engine.add(*requests)

    async def _look(self, claimed: ClaimedJob) -> _Read:
        job = decode_job(claimed.payload)
        if claimed.ref == BASE_REF:
            return _Read(claimed, job, None, None)
        record = await self._know(claimed.ref)
        _check_digest(claimed, record)
        return _Read(claimed, job, record.prompt_format, _source_of(record))

    async def _enter(self, read: _Read, prompt_ids: list[int]) -> HeldJob:
        """It is held from now on, and no longer expected."""
        if len(prompt_ids) >= self._max_model_len:
            raise PromptTooLong(
                f"prompt has {len(prompt_ids)} tokens; the context holds {self._max_model_len}, one of them new: "
                f"shorten it"
            )
        claimed = read.claimed
        seq_id = f"{claimed.job_id}:{claimed.fence}"
        params = resolve(read.job.params, claimed.seed, self._tokenizer.eos_ids)
        tools = self._tokenizer.tool_use(read.job, claimed.job_id, read.form)
        grammar = await self._grammar(read, tools)
        request = Request(seq_id, claimed.ref, prompt_ids, params, read.source, grammar)
        detokenizer = self._tokenizer.detokenizer(tools=tools is not None)
        answer = Answer(detokenizer, read.job.params.stop, tools and tools.parser)
        self._settler.drop_lost([claimed.job_id])  # held under an older lease: it was lost while nobody looked
        told = ToldTokens(self._tokenizer.spelling) if params.logprobs else None
        held = HeldJob(claimed, request, answer, stream=read.job.stream, told=told, schema=read.schema)
        self._jobs.add(held)
        if self._jobs.is_cancelled(claimed):
            await self._settler.cancel(held)
        self._jobs.admitted(claimed)
        return held

    async def _grammar(self, read: _Read, tools: ToolUse | None) -> str | None:
        """What the answer is held to, once it was judged."""
        form = read.job.response_format
        grammar = tools.grammar if tools is not None else None if form is None else grammar_of(form)
        if grammar is not None:
            await self._forms.admit(grammar, read.claimed.agent)
        return grammar

    async def prefetch(self, ref: str) -> None:
        """Bring an adapter towards a slot before any job asks for it; an unknown one is only logged."""
        try:
            record = await self._know(ref)
        except LorapoolError as error:
            log.warning("adapter not loaded", adapter=ref, error=str(error))
            return
        self._engine.near(_source_of(record))

    async def _know(self, ref: str) -> AdapterRecord:
        """Where the adapter comes from, and how it wants messages written. Raises UnknownAdapter, AdapterRefused."""
        since_s, record = self._known.get(ref, (0.0, None))
        if record is not None and time.monotonic() - since_s < KNOWN_S:
            return record
        record = await retry(lambda: self._catalog.get(ref), "adapter record")
        if record.status == "refused":
            raise AdapterRefused(f"adapter {ref} was refused: {record.reason}", reason=record.reason)
        if record.status != "pending":  # a verdict may still tell how messages are written
            self._known[ref] = time.monotonic(), record
        return record


def _source_of(record: AdapterRecord) -> AdapterSource:
    return AdapterSource(record.ref, record.digest, record.uri)


def _check_digest(claimed: ClaimedJob, record: AdapterRecord) -> None:
    if claimed.digest != record.digest:
        raise AdapterConflict(
            f"job was accepted for {claimed.ref} with digest {claimed.digest[:12]}…, "
            f"the catalog has {record.digest[:12]}…"
        )
