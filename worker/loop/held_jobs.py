"""HeldJobs: what this worker has claimed and not yet settled, and what has become of each so far.

The one owner of that list on the event loop: claimer, settler, lease keeper and control all act through it.
Knows nothing of Redis, nor of how a batch is run. A job is *unfinished* until the engine is done with it, and
*held* (its lease renewed) until its settlement was answered. Before that it is *expected*, from its claim to its
admission: it counts as unfinished.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

from lorapool.shared.job import FinishReason, More, TokenLogprob
from lorapool.shared.queue.protocol import ClaimedJob, Delta, JobLease
from lorapool.worker.engine.port import Request, Update
from lorapool.worker.text.answer import Added, Answer
from lorapool.worker.text.told_tokens import ToldTokens


@dataclass(slots=True, eq=False)
class HeldJob:
    """One claimed job, what was asked of the engine for it, and what has come of that so far.

    With ``finish_reason`` or ``error`` set its attempt is over: by the engine, or because the text ended it.
    """

    claimed: ClaimedJob
    request: Request
    answer: Answer
    stream: bool
    told: ToldTokens | None = None  # where logprobs were asked for
    schema: str | None = None  # what a whole answer without calls must fit
    output_ids: list[int] = field(default_factory=list)
    started: bool = False  # it has a row of the batch
    first_token_ms: int | None = None  # server clock
    load_ms: int = 0
    resident: bool = False
    unsent: Delta | None = None
    finish_reason: FinishReason | None = None
    error: Exception | None = None
    ended: bool = False

    @property
    def job_id(self) -> str:
        return self.claimed.job_id

    @property
    def seq_id(self) -> str:
        return self.request.seq_id

    @property
    def lease(self) -> JobLease:
        return JobLease(self.claimed.job_id, self.claimed.lease)

    @property
    def is_over(self) -> bool:
        return self.finish_reason is not None or self.error is not None

    @property
    def is_to_validate(self) -> bool:
        """It ended where its grammar did: what was cut off before cannot fit."""
        return self.schema is not None and self.finish_reason is FinishReason.EOS_TOKEN and not self.answer.tool_calls

    def absorb(self, update: Update, now_ms: int) -> None:
        """Take in what one step added to this job. Tokens after a stop string are no part of it; a token that has no
        text ends it with that error."""
        try:
            added = self.answer.push(update.token_ids, last=update.finish_reason is not None)
            told = self._told(update, added.tokens)
        except Exception as error:  # noqa: BLE001  whatever a detokenizer raises is this job's alone
            self.error = error
            return
        if self.first_token_ms is None and added.tokens:
            self.first_token_ms = now_ms
        self.output_ids += update.token_ids[: added.tokens]
        self.finish_reason = FinishReason.STOP_SEQUENCE if self.answer.stopped else update.finish_reason
        self.error = update.error
        if self.stream and (added.tokens or added.text or added.calls):
            self.unsent = self._grown(update, added, More(told, added.calls))

    def take_delta(self) -> Delta | None:
        """What was not yet emitted, once."""
        delta, self.unsent = self.unsent, None
        return delta

    def _told(self, update: Update, tokens: int) -> tuple[TokenLogprob, ...]:
        """What there is to tell of the first tokens of an update."""
        if self.told is None:
            return ()
        return self.told.push(update.token_ids[:tokens], update.logprobs[:tokens], update.top[:tokens])

    def _grown(self, update: Update, added: Added, more: More) -> Delta:
        """The unsent delta with this update added: a settler that lags sends fewer, longer deltas."""
        last, token_ids = self.unsent, update.token_ids[: added.tokens]
        return Delta(
            job_id=self.claimed.job_id,
            lease=self.claimed.lease,
            attempt=self.claimed.attempt,
            offset=update.offset if last is None else last.offset,
            text=added.text if last is None else last.text + added.text,
            token_ids=token_ids if last is None else last.token_ids + token_ids,
            more=more if last is None else last.more.joined(more),
        )


class HeldJobs:
    """JobLease jobs by id; at most one claim of a job at a time."""

    def __init__(self) -> None:
        self._jobs: dict[str, HeldJob] = {}
        self._by_sequence: dict[str, HeldJob] = {}
        self._expected: list[ClaimedJob] = []
        self._cancelled: list[ClaimedJob] = []
        self._unfinished: Counter[str] = Counter()  # by adapter ref
        self._listeners: list[Callable[[], None]] = []

    def __len__(self) -> int:
        return len(self._jobs)

    def __iter__(self) -> Iterator[HeldJob]:
        return iter(tuple(self._jobs.values()))

    def on_change(self, listener: Callable[[], None]) -> None:
        """Call it whenever a job ends or goes."""
        self._listeners.append(listener)

    def get(self, job_id: str) -> HeldJob | None:
        return self._jobs.get(job_id)

    def of_sequence(self, seq_id: str) -> HeldJob | None:
        return self._by_sequence.get(seq_id)

    def expect(self, claimed: Iterable[ClaimedJob]) -> None:
        """They take rows, and their leases are renewed, until each was ``admitted``."""
        for job in claimed:
            self._expected.append(job)
            self._unfinished[job.ref] += 1

    def mark_cancelled(self, lease: JobLease) -> None:
        """It is to be cancelled; heeded if that job is expected, whose admission asks ``is_cancelled``."""
        self._cancelled += [job for job in self._expected if lease == (job.job_id, job.lease)]

    def is_cancelled(self, claimed: ClaimedJob) -> bool:
        return claimed in self._cancelled

    def admitted(self, claimed: ClaimedJob) -> None:
        """It was added, or refused."""
        self._expected.remove(claimed)
        self._cancelled = [job for job in self._cancelled if job is not claimed]
        self._finish(claimed.ref)

    def expect_no_more(self) -> list[JobLease]:
        """Who was to admit them is gone: the leases, to be given back."""
        leases = [JobLease(job.job_id, job.lease) for job in self._expected]
        for job in tuple(self._expected):
            self.admitted(job)
        return leases

    def add(self, job: HeldJob) -> None:
        assert job.job_id not in self._jobs, f"{job.job_id} is held already"
        self._jobs[job.job_id] = self._by_sequence[job.seq_id] = job
        self._unfinished[job.claimed.ref] += 1

    def end(self, job: HeldJob) -> bool:
        """Mark as out of the batch; False if it was, or is no longer held: only one caller may settle it."""
        if job.ended or self._jobs.get(job.job_id) is not job:
            return False
        job.ended = True
        self._finish(job.claimed.ref)
        self._changed()
        return True

    def drop(self, job: HeldJob) -> None:
        """Forget a job that was settled, released or lost."""
        self.end(job)
        if self._jobs.get(job.job_id) is job:
            del self._jobs[job.job_id], self._by_sequence[job.seq_id]
            self._changed()

    def leases(self) -> list[JobLease]:
        expected = [JobLease(job.job_id, job.lease) for job in self._expected]
        return [*(job.lease for job in self._jobs.values()), *expected]

    def unfinished(self) -> int:
        return self._unfinished.total()

    def unfinished_by_adapter(self) -> dict[str, int]:
        return dict(self._unfinished)

    def overdue(self, now_ms: int) -> list[HeldJob]:
        """Unfinished jobs whose deadline has passed."""
        return [job for job in self._jobs.values() if not job.ended and _passed(job.claimed.deadline_ms, now_ms)]

    def check_integrity(self) -> None:
        assert len(self._jobs) == len(self._by_sequence)
        running = [job.claimed for job in self._jobs.values() if not job.ended]
        assert self._unfinished == Counter(job.ref for job in (*running, *self._expected))

    def _changed(self) -> None:
        for listener in self._listeners:
            listener()

    def _finish(self, ref: str) -> None:
        self._unfinished[ref] -= 1
        if not self._unfinished[ref]:
            del self._unfinished[ref]


def _passed(deadline_ms: int | None, now_ms: int) -> bool:
    return deadline_ms is not None and deadline_ms <= now_ms
