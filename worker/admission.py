"""Admission: a claimed job becomes a sequence of the engine, or is refused with a reason.

Decodes the request, finds the adapter's record, makes token ids. Knows what can be wrong with a single job before it
runs; nothing of batches. Long prompts are tokenized off the event loop, so that leases are renewed meanwhile.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable
from typing import Protocol

import structlog

from lorapool.shared.broker import ClaimedJob
from lorapool.shared.catalog import AdapterRecord, Catalog
from lorapool.shared.codec import decode_job
from lorapool.shared.errors import AdapterConflict, AdapterRefused, InvalidRequest, LorapoolError
from lorapool.shared.job import BASE_REF, Job
from lorapool.shared.prompt_format import PromptFormat
from lorapool.worker.adapter_source import AdapterSource
from lorapool.worker.adapters import AdapterCache
from lorapool.worker.engine_thread import EngineThread
from lorapool.worker.held_jobs import HeldJob, HeldJobs
from lorapool.worker.persistence import persist
from lorapool.worker.publisher import Publisher
from lorapool.worker.sequence import Detokenizer, Sequence

log = structlog.get_logger()

KNOWN_S = 60.0  # a version is immutable, but removed and registered again it may lie elsewhere
INLINE_PAYLOAD_BYTES = 16_384  # longer requests are tokenized in a thread


class Tokenizer(Protocol):
    """What turns requests into token ids, and a sequence's tokens into text."""

    def encode(self, job: Job, form: PromptFormat | None = None) -> list[int]: ...
    def detokenizer(self) -> Detokenizer: ...


class PromptTooLong(InvalidRequest):
    """The prompt leaves no room for a single new token in the context."""


class Admission:
    """Admits claimed jobs one by one, in the order they were claimed."""

    def __init__(
        self,
        jobs: HeldJobs,
        engine: EngineThread,
        adapters: AdapterCache,
        publisher: Publisher,
        catalog: Catalog,
        tokenizer: Tokenizer,
        max_model_len: int,
    ) -> None:
        self._jobs, self._engine, self._adapters, self._publisher = jobs, engine, adapters, publisher
        self._catalog, self._tokenizer, self._max_model_len = catalog, tokenizer, max_model_len
        self._known: dict[str, tuple[float, AdapterRecord]] = {}  # since when, by the monotonic clock

    async def admit(self, claimed: Iterable[ClaimedJob]) -> None:
        """Hand the expected jobs to the engine, together; settle those that cannot run."""
        admitted: list[HeldJob] = []
        for job in claimed:
            if len(job.payload) > INLINE_PAYLOAD_BYTES:
                self._hand_over(admitted)  # rather than wait for a long prompt's tokens
            try:
                admitted.append(held := await self._admit(job))
                if self._jobs.is_recalled(job):
                    await self._publisher.cancel(held)
            except Exception as error:  # noqa: BLE001  a job that nobody thought of must not take the worker down
                await self._publisher.refuse(job, error)
            finally:
                self._jobs.met(job)
        self._hand_over(admitted)

    def _hand_over(self, admitted: list[HeldJob]) -> None:
        """To the engine, but for those cancelled by now; empties the list."""
        if sequences := [job.sequence for job in admitted if not job.ended]:
            self._engine.add(*sequences)
        admitted.clear()

    async def _admit(self, claimed: ClaimedJob) -> HeldJob:
        job, form = decode_job(claimed.payload), None
        if claimed.ref != BASE_REF:
            record = await self._know(claimed.ref)
            _check_digest(claimed, record)
            form = record.prompt_format
        prompt_ids = await self._encode(job, form, len(claimed.payload))
        sequence = Sequence(
            seq_id=f"{claimed.job_id}:{claimed.fence}",
            ref=claimed.ref,
            prompt_ids=prompt_ids,
            params=job.params,
            seed=claimed.seed,
            detokenizer=self._tokenizer.detokenizer(),
        )
        self._publisher.drop_lost([claimed.job_id])  # held under an older lease: it was lost while nobody looked
        held = HeldJob(claimed, sequence, stream=job.stream)
        self._jobs.add(held)
        return held

    async def _encode(self, job: Job, form: PromptFormat | None, size_bytes: int) -> list[int]:
        foreign = job.messages is not None and form is not None and form.template  # a program that came with an adapter
        if size_bytes <= INLINE_PAYLOAD_BYTES and not foreign:
            ids = self._tokenizer.encode(job, form)
        else:
            ids = await asyncio.to_thread(self._tokenizer.encode, job, form)
        if len(ids) >= self._max_model_len:
            raise PromptTooLong(
                f"prompt has {len(ids)} tokens; the context holds {self._max_model_len}, one of them new: shorten it"
            )
        return ids

    async def prefetch(self, ref: str) -> None:
        """Bring an adapter towards a slot before any job asks for it; an unknown one is only logged."""
        try:
            await self._know(ref)
        except LorapoolError as error:
            log.warning("adapter not loaded", adapter=ref, error=str(error))
            return
        self._engine.order(lambda: self._want(ref))

    def _want(self, ref: str) -> None:
        """On the engine's thread: asking for a slot starts the load."""
        if self._adapters.acquire(ref) is not None:
            self._adapters.release(ref)

    async def _know(self, ref: str) -> AdapterRecord:
        """Make sure that the cache knows where the adapter comes from. Raises UnknownAdapter, AdapterRefused."""
        since_s, record = self._known.get(ref, (0.0, None))
        if record is not None and time.monotonic() - since_s < KNOWN_S:
            return record
        record = await persist(lambda: self._catalog.get(ref), "adapter record")
        if record.status == "refused":
            raise AdapterRefused(f"adapter {ref} was refused: {record.reason}", reason=record.reason)
        source = AdapterSource(ref, record.digest, record.uri)
        self._engine.order(lambda: self._adapters.know(source))
        if record.status != "pending":  # a verdict may still tell how messages are written
            self._known[ref] = time.monotonic(), record
        return record


def _check_digest(claimed: ClaimedJob, record: AdapterRecord) -> None:
    if claimed.digest != record.digest:
        raise AdapterConflict(
            f"job was accepted for {claimed.ref} with digest {claimed.digest[:12]}…, "
            f"the catalog has {record.digest[:12]}…"
        )
