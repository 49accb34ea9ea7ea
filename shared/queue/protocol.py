"""The claim protocol's words: what the queue's operations take and return.

Plain frozen data, named tuples where one is made for every job (in a third of the time); the behaviour is in the queue
of each side and in the scripts. Times are milliseconds of the server's clock, job ids are full (``<partition>.<id>``).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from lorapool.shared.job import NO_MORE, JobState, More


@dataclass(frozen=True, slots=True)
class Enqueued:
    """``created`` is False when the same id and request were there already."""

    job_id: str  # full id, "<partition>.<id>"
    state: JobState
    created: bool


@dataclass(frozen=True, slots=True)
class WaitingAdapter:
    """One claimable adapter, as the affinity policy sees it."""

    ref: str
    since_ms: int  # when the job that it gives next became claimable: its starvation clock
    depth: int  # waiting jobs, all priorities
    served: float  # virtual token counter


@dataclass(frozen=True, slots=True)
class View:
    """A fresh bounded view: the 32 longest waiting, the 32 least served, and the caller's residents with backlog."""

    now_ms: int
    waiting: tuple[WaitingAdapter, ...]
    next_due_ms: int | None  # next delayed job, lease or deadline to look at
    ready_count: int  # claimable adapters in all
    apart: bool = False  # this worker is to claim nothing but suspects: it is one of the few that run them
    suspects: int = 0  # jobs whose worker vanished, that this worker may take once it holds nothing
    behind: bool = False  # more was due, to be tidied up, than one call may do: come again at once


class ClaimedJob(NamedTuple):
    """A job now owned by ``lease``."""

    job_id: str  # full id
    lease: str
    ref: str
    digest: str
    agent: str
    attempt: int  # 1 for the first
    lost: int  # times a worker vanished with it
    fence: int
    seed: int
    submitted_ms: int
    claimed_ms: int
    deadline_ms: int | None  # absolute
    payload: bytes  # codec.decode_job


class JobLease(NamedTuple):
    """What a worker says it owns."""

    job_id: str
    lease: str


@dataclass(frozen=True, slots=True)
class Claim:
    jobs: tuple[ClaimedJob, ...]
    view: View
    unreadable: tuple[JobLease, ...] = ()  # ours now, but damaged: to be settled as failed


@dataclass(frozen=True, slots=True)
class Renewed:
    lost: tuple[str, ...]  # job ids no longer ours: drop them at once
    cancelled: tuple[str, ...]  # asked to stop: abort, then settle as cancelled
    overdue: tuple[str, ...] = ()  # past their deadline by the server's clock: abort, then settle as expired


@dataclass(frozen=True, slots=True)
class Delta:
    """Text and tokens that one step added to a streamed job."""

    job_id: str
    lease: str
    attempt: int
    offset: int  # index of the first token in token_ids within the completion
    text: str
    token_ids: tuple[int, ...]
    more: More = NO_MORE


class Settlement(NamedTuple):
    """The end of one attempt. ``outcome`` retry means: failed in a way that may pass; dead: failed for good here, with
    the request kept as a dead letter, since another release may serve it."""

    job_id: str
    lease: str
    outcome: Literal["succeeded", "failed", "retry", "dead", "cancelled", "expired"]
    error: str = ""  # stable name, e.g. PromptTooLong
    message: str = ""
    text: str = ""
    finish_reason: str = ""
    prompt_tokens: int = 0
    completion_tokens: int = 0
    load_ms: int = 0  # waited for its adapter's slot
    first_token_ms: int | None = None  # server clock
    resident: bool = False
    device: str = ""
    dtype: str = ""
    detail: bytes = b""  # codec.encode_detail: token ids, logprobs


class Settled(NamedTuple):
    job_id: str
    outcome: Literal["settled", "stale"]
    state: str  # the job's state afterwards ("" when gone)


@dataclass(frozen=True, slots=True)
class Explanation:
    """Why a job is where it is: ``reason`` is a short stable word, ``message`` a sentence for people."""

    job_id: str
    state: JobState
    reason: str
    message: str
    facts: Mapping[str, str] = field(default_factory=dict)


class Notice(NamedTuple):
    """What a client's inbox says of one job: that it ended, a hint; or a short answer as a whole, ``record``, written
    together with the job's own record (as ``ClientQueue.results`` has it). ``entry_id`` is where to read on: one entry
    may tell of many jobs."""

    entry_id: str
    job_id: str
    state: JobState | None  # None: unreadable, and so a hint as well
    record: Mapping[str, str | bytes] | None = None


@dataclass(frozen=True, slots=True)
class StreamItem:
    """One entry of a streamed job: a delta, the restart that begins a later attempt, or the end with its ``state``.
    ``unreadable``: to be stepped over."""

    entry_id: str
    kind: Literal["delta", "restart", "end", "unreadable"]
    attempt: int
    offset: int = 0
    text: str = ""
    token_ids: tuple[int, ...] = ()
    state: JobState | None = None
    more: More = NO_MORE


@dataclass(frozen=True, slots=True)
class Backlog:
    """Jobs by adapter ref, those without any left out; ``oldest_wait_ms``: how long the first in any stream has been
    in it, None where nothing waits."""

    waiting: Mapping[str, int]
    running: Mapping[str, int]
    oldest_wait_ms: int | None


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """A job that failed for good, with its request kept. ``redriven_as``: the job made of it again, or empty."""

    job_id: str  # full id
    ref: str
    agent: str
    reason: str
    message: str
    attempts: int
    lost: int
    died_ms: int
    redriven_as: str = ""  # full id


@dataclass(frozen=True, slots=True)
class DeadPage:
    """Some dead letters, newest first; ``cursor`` is where to go on, empty at the end."""

    letters: tuple[DeadLetter, ...]
    cursor: str


@dataclass(frozen=True, slots=True)
class Purged:
    """How many went in this call; ``cursor`` is where to go on, empty at the end."""

    count: int
    cursor: str


@dataclass(frozen=True, slots=True)
class Retired:
    """An adapter's state (open, paused, closed, removed) and the jobs that have not ended; delayed ones wait too."""

    state: str
    waiting: int
    running: int


@dataclass(frozen=True, slots=True)
class Limits:
    """What an adapter may hold and run; None stands for the default."""

    max_depth: int | None = None  # waiting jobs
    max_inflight: int | None = None  # running jobs
    agent_window: int | None = None  # undelivered jobs of one agent
    weight: float | None = None  # share of the served tokens against other adapters


@dataclass(frozen=True, slots=True)
class Finding:
    """One damage that a check found and repaired: its kind, and the job, adapter, worker or key it was found on."""

    damage: str
    subject: str
    repair: str


@dataclass(frozen=True, slots=True)
class Checked:
    """What one step of a check found; ``cursor`` is where to go on, empty at the end."""

    findings: tuple[Finding, ...]
    cursor: str
