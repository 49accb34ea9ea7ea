"""The claim protocol in its plainest form, to compare the scripts with. Time is passed in; knows no server."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from lorapool.shared.errors import AdapterClosed, QueueFull, QuotaExceeded, UnknownKey
from lorapool.shared.job import Job
from lorapool.shared.queue import arguments
from lorapool.shared.server.terms import Terms

LEASE_MS = 15_000
WAITING, ENDED = {"queued", "delayed"}, {"succeeded", "failed", "cancelled", "expired"}
TERMS = Terms(agent_window=6, backoff_ms=1_000, max_attempts=2)


@dataclass
class ModelKey:
    """What we believe of one API key: its quotas, and what it used in the minute and the day of ``look``."""

    jobs_per_minute: int | None = None
    tokens_per_day: int | None = None
    good: bool = True
    minute: int = 0
    jobs: int = 0
    day: int = 0
    tokens: int = 0

    def look(self, now: int) -> None:
        """Minutes and days begin anew."""
        if self.minute != now // 60_000:
            self.minute, self.jobs = now // 60_000, 0
        if self.day != now // 86_400_000:
            self.day, self.tokens = now // 86_400_000, 0

    def refusal(self, cost: int) -> type[Exception] | None:
        """``look`` comes first."""
        if not self.good:
            return UnknownKey
        beyond_jobs = self.jobs_per_minute is not None and self.jobs >= self.jobs_per_minute
        beyond_tokens = self.tokens_per_day is not None and self.tokens + cost > self.tokens_per_day
        return QuotaExceeded if beyond_jobs or beyond_tokens else None


@dataclass
class ModelJob:
    """What we believe of one job."""

    job: Job
    state: str
    due: int | None = None
    deadline: int | None = None
    watched: bool = False  # its deadline is still to be looked at
    lease: str = ""
    lease_until: int = 0
    worker: str = ""
    suspect: bool = False
    attempts: int = 0
    lost: int = 0
    lifted: int = 0  # of these, since their worker came back
    lost_leases: list[str] = field(default_factory=list)  # whose workers may yet come back
    spared: int = 0  # until when its worker was given time to come back, since another loss would be the last
    fence: int = 0
    retries: int = 0
    cancel: str = ""
    settled_by: str = ""
    released_by: str = ""
    dead: bool = False
    purged: bool = False  # no dead letter any more
    redriven: str = ""  # the job made of it again
    answer: dict[str, Any] = field(default_factory=dict)
    charged_on: int = 0  # day

    @property
    def guilt(self) -> int:
        return self.lost - self.lifted


class Model:
    """The protocol in its plainest form; time is passed in."""

    def __init__(self) -> None:
        self.jobs: dict[str, ModelJob] = {}
        self.stale: Counter[str] = Counter()  # by ref
        self.last_tick = self.calm_until = 0
        self.culprits: list[ModelJob] = []  # deadly jobs found just now
        self.admits: dict[str, str] = {}  # open, paused or closed, by ref; open if it is not named
        self.limits: dict[tuple[str, str], int] = {}  # by ref (or * for all) and name
        self.keys: dict[str, ModelKey] = {}
        self.now = 0

    def of(self, *states: str) -> list[ModelJob]:
        return [job for job in self.jobs.values() if job.state in states]

    def overdue(self, job: ModelJob, now: int) -> bool:
        return job.deadline is not None and job.deadline <= now

    def tick(self, now: int) -> None:
        if now - self.last_tick > max(LEASE_MS // 2, 2000) and self.of("running"):
            self.calm_until = now + LEASE_MS
        self.last_tick = now
        for job in self.of("delayed"):
            if job.due is not None and job.due <= now:
                self.wait(job, "queued")
        if now >= self.calm_until:
            for job in (job for job in self.of("running") if job.lease_until <= now):
                if self.dies_of_a_loss(job, now) and job.spared != job.lease_until:
                    job.spared = job.lease_until = now + LEASE_MS
                else:
                    self.reap(job, now, returns=True)
            self.exonerate()
        self.look_at_deadlines(now)

    def dies_of_a_loss(self, job: ModelJob, now: int) -> bool:
        return job.guilt + 1 >= TERMS.max_lost and job.cancel != "cancelled" and not self.overdue(job, now)

    def look_at_deadlines(self, now: int) -> None:
        for job in self.jobs.values():
            if job.watched and self.overdue(job, now):
                job.watched = False
                if job.state in WAITING:
                    self.end(job, "expired")
                elif job.state == "running":
                    job.cancel = job.cancel or "deadline"

    def reap(self, job: ModelJob, now: int, *, returns: bool) -> None:
        """``returns``: its worker may come back, as it may not when it said itself that the job was lost."""
        job.lost += 1
        job.lost_leases.append(job.lease if returns else f"!{job.lease}")
        if job.cancel == "cancelled":
            self.end(job, "cancelled")
        elif self.overdue(job, now):
            self.end(job, "expired")
        elif job.guilt >= TERMS.max_lost:
            self.end(job, "failed")
            job.dead = True
            self.culprits.append(job)
        else:
            self.wait(job, "queued")

    def exonerate(self) -> None:
        """What was lost beside deadly jobs is held against their mates no longer, but for one loss."""
        guilty = {lease for culprit in self.culprits for lease in culprit.lost_leases}
        self.culprits.clear()
        for job in self.jobs.values():
            for lease in [lease for lease in job.lost_leases if job.suspect and lease in guilty]:
                if job.guilt > 1:
                    self.lift(job, lease)

    def wait(self, job: ModelJob, state: str) -> None:
        job.state, job.lease, job.suspect = state, "", state == "queued" and job.guilt > 0

    def lift(self, job: ModelJob, lease: str) -> None:
        """A lease that was reaped was spoken of again."""
        if job.state not in ENDED and lease in job.lost_leases:
            job.lost_leases.remove(lease)
            job.lifted += 1
            job.suspect = job.suspect and job.guilt > 0

    def end(self, job: ModelJob, state: str, used: int = 0) -> None:
        """``used``: tokens, of whoever settled it."""
        assert job.state not in ENDED, f"{job.job.id} ended twice"
        job.state, job.lease, job.suspect, job.watched = state, "", False, False
        if key := self.key_of(job.job):
            key.tokens += used - cost_of(job.job) if job.charged_on == key.day else 0

    def accept(self, job: ModelJob) -> None:
        self.jobs[job.job.id] = job
        if key := self.key_of(job.job):
            key.jobs, key.tokens, job.charged_on = key.jobs + 1, key.tokens + cost_of(job.job), key.day

    def key_of(self, job: Job) -> ModelKey | None:
        key = self.keys[job.key] if job.key else None
        if key is not None:
            key.look(self.now)
        return key

    def refusal(self, job: Job) -> type[Exception] | None:
        """What an enqueue of that job raises, in the order in which it looks."""
        if self.admits.get(job.ref) == "closed":
            return AdapterClosed
        depths = {ref: self.depth(ref) for ref in (job.ref, "*")}
        full = any(depth >= self.limits.get((ref, "max_depth"), TERMS.max_depth) for ref, depth in depths.items())
        window = self.limits.get((job.ref, "agent_window"), TERMS.agent_window)
        if full or self.window(job.ref, job.agent) >= window:
            return QueueFull
        key = self.key_of(job)
        return key.refusal(cost_of(job)) if key else None

    def depth(self, ref: str) -> int:
        """Jobs in streams; delayed ones and suspects wait elsewhere."""
        return sum(not job.suspect and ref in {"*", job.job.ref} for job in self.of("queued"))

    def at_capacity(self, ref: str) -> bool:
        cap = self.limits.get((ref, "max_inflight"))
        return cap is not None and sum(job.job.ref == ref for job in self.of("running")) >= cap

    def window(self, ref: str, agent: str) -> int:
        return sum(job.job.ref == ref and job.job.agent == agent for job in self.of(*WAITING))


def cost_of(job: Job) -> int:
    return arguments.of_job(job).cost
