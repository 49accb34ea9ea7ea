"""Ticket: what a client knows of one job that somebody holds a handle of. Plain state; the inbox is its owner."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field

from lorapool.producer.client.record import Record
from lorapool.shared.errors import Fate
from lorapool.shared.job import Job, JobState

POLL_FIRST_S = 0.02


@dataclass(frozen=True, slots=True)
class Copy:
    """A request kept for the case that the server loses it."""

    job: Job
    sent_at: float = field(default_factory=time.monotonic)

    def again(self) -> Job | None:
        """The same request now: its delay and deadline count from the first time. None once its deadline has passed."""
        passed_ms = round((time.monotonic() - self.sent_at) * 1000)
        late = self.job.deadline_ms is not None and self.job.deadline_ms <= passed_ms
        if late:
            return None
        delay_ms = max(0, self.job.delay_ms - passed_ms)
        deadline_ms = None if self.job.deadline_ms is None else self.job.deadline_ms - passed_ms
        return self.job.model_copy(update={"delay_ms": delay_ms, "deadline_ms": deadline_ms})


class Ticket:
    """``own``: its notice comes to this client's inbox. ``copy`` is what is submitted again if it is lost.

    ``losses`` counts how often it was submitted again.
    """

    __slots__ = (
        "__weakref__",
        "alive_at",
        "checked_at",
        "copy",
        "deadline_at",
        "due",
        "fresh",
        "future",
        "job_id",
        "losses",
        "own",
        "poll_s",
        "waiters",
    )

    def __init__(self, job_id: str, *, own: bool, deadline_at: float | None) -> None:
        self.job_id, self.own, self.deadline_at = job_id, own, deadline_at
        self.due = float("inf") if own else 0.0
        self.alive_at: float | None = None  # time.time() when it was last known not to have ended; 0 once it had
        self.checked_at = time.monotonic()  # when it was last looked up, or came to be
        self.fresh = True
        self.poll_s = POLL_FIRST_S
        self.waiters = 0
        self.copy: Copy | None = None
        self.losses = 0
        self.future: asyncio.Future[Record] | None = None

    def disown(self) -> None:
        """The job was there before, and its notice goes to whoever submitted it first: poll, unless that was us."""
        if self.fresh:
            self.own, self.due = False, 0.0

    def accepted(self, state: JobState) -> None:
        """The server said that it has the job."""
        self.alive_at = 0.0 if state.terminal else time.time()

    @property
    def fate(self) -> Fate | None:
        """What an error about this job can say of its submission."""
        return None if self.alive_at is None else Fate.QUEUED

    @property
    def record(self) -> Record | None:
        """What an awaiter reads of the terminal record (``ClientQueue.results``), once known."""
        future = self.future
        known = future is not None and future.done() and not future.cancelled() and future.exception() is None
        return future.result() if known and future is not None else None
