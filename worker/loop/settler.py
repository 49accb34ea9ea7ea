"""Settler: what the engine did, written to Redis: deltas of streamed jobs, and the end of each attempt.

Everything is written under the job's lease; what Redis refuses as stale is dropped and told. A slow or absent server
holds up these coroutines only: the engine goes on, and its steps are published in fewer, larger calls.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable, Sequence
from typing import Literal

import structlog

from lorapool.shared.codec import encode_detail
from lorapool.shared.errors import (
    AdapterConflict,
    AdapterRefused,
    AdapterUnavailable,
    CheckpointError,
    InvalidRequest,
    JobCancelled,
    UnknownAdapter,
    UnsupportedVersion,
)
from lorapool.shared.queue.protocol import ClaimedJob, Settled, Settlement
from lorapool.shared.queue.worker import WorkerQueue
from lorapool.shared.server.redis_retry import retry, retry_until_repaired
from lorapool.worker.adapters.not_here import NotHere
from lorapool.worker.engine.port import AsyncEngine, EngineDown, Lost, Report, Update, name_of
from lorapool.worker.loop.answer_forms import AnswerForms, InvalidAnswer
from lorapool.worker.loop.clock import ServerClock
from lorapool.worker.loop.held_jobs import HeldJob, HeldJobs
from lorapool.worker.loop.validations import Validations

Outcome = Literal["succeeded", "failed", "retry", "dead", "cancelled", "expired"]

HOPELESS = (InvalidRequest, InvalidAnswer, CheckpointError, UnknownAdapter, AdapterRefused, AdapterConflict)

log = structlog.get_logger()


class Settler:
    """Settles each held job once; ``device`` and ``dtype`` are part of every result."""

    def __init__(
        self,
        queue: WorkerQueue,
        jobs: HeldJobs,
        engine: AsyncEngine,
        clock: ServerClock,
        not_here: NotHere,
        *,
        device: str,
        dtype: str,
        forms: AnswerForms | None = None,
    ) -> None:
        self._validations = Validations(forms or AnswerForms(None), self._end)
        self._queue, self._jobs, self._engine, self._clock = queue, jobs, engine, clock
        self._not_here = not_here
        self._device, self._dtype = device, dtype
        self._ended: list[HeldJob] = []
        self._some_ended = asyncio.Event()

    async def publish(self, report: Report) -> None:
        """Emit what the steps added, then leave what they ended to ``settle_ended``: its rows are free at once."""
        for start in report.starts:
            if (job := self._jobs.of_sequence(start.seq_id)) is not None:
                job.started, job.load_ms, job.resident = True, start.load_ms, start.resident
                self._not_here.reached(job.claimed.ref)
        now_ms = self._clock.now_ms()
        ended = [job for job, update in self._live(report.updates) if self._ends(job, update, now_ms)]
        await self._emit()
        for job in ended:
            self._validations.take(job)

    async def settle_ended(self) -> None:
        """Settle call after call, until cancelled; what ends while one is on its way goes with the next."""
        try:
            while True:
                await self._some_ended.wait()
                self._some_ended.clear()
                ended, self._ended = self._ended, []
                await self._settle_all(ended)
        finally:
            await self._validations.close()

    async def _settle_all(self, ended: Sequence[HeldJob]) -> None:
        await self._leave_to_others([job for job in ended if isinstance(job.error, AdapterUnavailable)])
        await self.release([job for job in ended if isinstance(job.error, EngineDown)])
        rest = [job for job in ended if not isinstance(job.error, AdapterUnavailable | EngineDown)]
        await self._settle([(job, self._settlement_of(job)) for job in rest])

    def _end(self, job: HeldJob) -> None:
        self._ended.append(job)
        self._some_ended.set()

    async def release(self, jobs: Sequence[HeldJob]) -> None:
        """Back to their streams, no attempt burnt: jobs that have ended here."""
        if jobs:
            await retry(lambda: self._queue.release([job.lease for job in jobs]), "release")
            log.info("released", jobs=len(jobs))
        for job in jobs:
            self._jobs.drop(job)

    async def give_up(self, lost: Lost) -> None:
        """The engine ended with jobs inside: those that it was busy with are lost, as if this worker had died with
        them; the others go back unburnt."""
        inside = [job for seq_id in lost.inside if (job := self._jobs.of_sequence(seq_id)) is not None]
        inside = [job for job in inside if self._jobs.end(job)]
        blamed = [job for job in inside if job.seq_id in lost.blamed]
        if blamed:
            await retry(lambda: self._queue.lose([job.lease for job in blamed]), "lose")
            log.warning("lost with the engine", jobs=[job.job_id for job in blamed], why=lost.why, reason=lost.reason)
        for job in blamed:
            self._jobs.drop(job)
        await self.release([job for job in inside if job.seq_id not in lost.blamed])

    async def close(self, job: HeldJob, outcome: Outcome, *, message: str) -> None:
        """Take a running job out of the batch and settle it; nothing happens if it has ended by itself."""
        if self._jobs.end(job):
            self._engine.abort(job.seq_id)
            await self._settle([(job, self._settlement(job, outcome, message=message))])

    async def cancel(self, job: HeldJob) -> None:
        """As its client asked."""
        await self.close(job, "cancelled", message="cancelled on request while it ran")

    async def refuse(self, claimed: ClaimedJob, error: Exception) -> None:
        """Settle a job that never entered the engine."""
        settlement = Settlement(
            claimed.job_id,
            claimed.lease,
            _outcome_of(error),
            error=type(error).__name__,
            message=str(error),
            device=self._device,
            dtype=self._dtype,
        )
        (settled,) = await self._written([settlement])
        self._tell(claimed, settlement, settled)

    def drop_lost(self, job_ids: Iterable[str]) -> None:
        """Forget jobs whose lease is no longer ours; nothing more is written for them."""
        for job_id in job_ids:
            if (job := self._jobs.get(job_id)) is not None:
                self._jobs.drop(job)
                self._engine.abort(job.seq_id)
                log.warning("lease lost", job=job_id, adapter=job.claimed.ref, attempt=job.claimed.attempt)

    def _live(self, updates: Iterable[Update]) -> Iterable[tuple[HeldJob, Update]]:
        for update in updates:
            job = self._jobs.of_sequence(update.seq_id)
            if job is not None and not job.ended:
                yield job, update

    def _ends(self, job: HeldJob, update: Update, now_ms: int) -> bool:
        job.absorb(update, now_ms)
        if job.is_over and not update.is_last:  # its text ended it: the engine goes on until it is told
            self._engine.abort(job.seq_id, finished=job.error is None)
        return job.is_over and self._jobs.end(job)

    async def _emit(self) -> None:
        deltas = [delta for job in self._jobs if (delta := job.take_delta()) is not None]
        if deltas:
            self.drop_lost(await retry_until_repaired(lambda: self._queue.emit(deltas), "emit"))

    async def _leave_to_others(self, ended: Sequence[HeldJob]) -> None:
        """Jobs whose adapter cannot be had here: back to their streams, no attempt burnt."""
        for job in ended:
            if self._not_here.note(job.claimed.ref, str(job.error)):
                log.warning("adapter not here", adapter=job.claimed.ref, reason=str(job.error))
        if ended:
            leases = [job.lease for job in ended]
            await retry(lambda: self._queue.release(leases), "release")
        for job in ended:
            self._jobs.drop(job)

    async def _settle(self, ended: Sequence[tuple[HeldJob, Settlement]]) -> None:
        settlements = [settlement for _, settlement in ended]
        answers = await self._written(settlements)
        verbose = log.is_enabled_for(logging.INFO)
        for (job, settlement), settled in zip(ended, answers, strict=True):
            self._jobs.drop(job)
            if verbose or settlement.error or settled.outcome == "stale":
                self._tell(job.claimed, settlement, settled)

    async def _written(self, settlements: Sequence[Settlement]) -> list[Settled]:
        """Settle them; one that cannot be written as it is fails for that, and takes no other with it."""
        try:
            return await retry(lambda: self._queue.settle(settlements), "settle")
        except Exception:
            log.exception("not settled", jobs=[settlement.job_id for settlement in settlements])
            if len(settlements) > 1:
                return [settled for one in settlements for settled in await self._written([one])]
            return await retry_until_repaired(lambda: self._queue.settle([_unwritable(settlements[0])]), "settle")

    def _settlement_of(self, job: HeldJob) -> Settlement:
        if job.error is None:
            return self._settlement(job, "succeeded", finish_reason=str(job.finish_reason))
        return self._settlement(job, _outcome_of(job.error), error=name_of(job.error), message=str(job.error))

    def _settlement(
        self, job: HeldJob, outcome: Outcome, *, finish_reason: str = "", error: str = "", message: str = ""
    ) -> Settlement:
        told = None if job.told is None else job.told.all
        logprobs = None if told is None else [token.logprob for token in told]
        return Settlement(
            job_id=job.claimed.job_id,
            lease=job.claimed.lease,
            outcome=outcome,
            error=error,
            message=message,
            text=job.answer.text,
            finish_reason=finish_reason,
            prompt_tokens=len(job.request.prompt_ids),
            completion_tokens=len(job.output_ids),
            load_ms=job.load_ms,
            first_token_ms=job.first_token_ms,
            resident=job.resident,
            device=self._device,
            dtype=self._dtype,
            detail=encode_detail(job.output_ids, logprobs, told, job.answer.tool_calls),
        )

    def _tell(self, claimed: ClaimedJob, settlement: Settlement, settled: Settled) -> None:
        """One line a job."""
        first_ms, submitted_ms = settlement.first_token_ms, claimed.submitted_ms
        facts = {
            "job": claimed.job_id,
            "agent": claimed.agent,
            "adapter": claimed.ref,
            "attempt": claimed.attempt,
            "queue_ms": claimed.claimed_ms - submitted_ms,
            "load_ms": settlement.load_ms,
            "first_token_ms": None if first_ms is None else first_ms - submitted_ms,
            "total_ms": self._clock.now_ms() - submitted_ms,
            "prompt_tokens": settlement.prompt_tokens,
            "completion_tokens": settlement.completion_tokens,
        }
        if settled.outcome == "stale":
            log.warning("stale: refused, the lease was lost", **facts)
        elif settlement.error:
            log.warning(settlement.outcome, error=settlement.error, message=settlement.message, **facts)
        else:
            log.info(settlement.outcome, **facts)


def _outcome_of(error: Exception) -> Outcome:
    """What a failure leads to: the same again is hopeless, a newer release may understand it, or it may pass."""
    if isinstance(error, UnsupportedVersion):
        return "dead"
    if isinstance(error, JobCancelled):
        return "cancelled"
    return "failed" if isinstance(error, HOPELESS) else "retry"


def _unwritable(settlement: Settlement) -> Settlement:
    """The same end, failed for a constant reason."""
    return Settlement(
        settlement.job_id,
        settlement.lease,
        "failed",
        error="Unwritable",
        message="the job's end cannot be written as it is; see the worker's log",
        device=settlement.device,
        dtype=settlement.dtype,
    )
