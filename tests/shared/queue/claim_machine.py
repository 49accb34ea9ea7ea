"""The claim protocol against a small model: random operations, repeated replies, vanishing workers, a stepped clock.

Not a test by itself: test_claim_machine.py runs it on fakeredis and on a real server.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import Bundle, consumes, initialize, multiple, rule

from lorapool.shared.errors import JobConflict
from lorapool.shared.job import Job
from lorapool.shared.queue.protocol import ClaimedJob, Delta, JobLease, Settlement
from tests.shared.queue.claim_bench import REFS
from tests.shared.queue.claim_model import ENDED, LEASE_MS, TERMS, WAITING, ModelJob
from tests.shared.queue.claim_upkeep import UpkeepRules

WORKERS = ("w1", "w2", "w3")
KEYS = {"few": {"jobs_per_minute": 3}, "short": {"tokens_per_day": 700}, "free": {}}


class ClaimMachine(UpkeepRules):
    """Clients and workers; subclasses give ``connect``."""

    claims = Bundle("claims")

    @initialize(seed=st.integers(0, 1 << 16))
    def open(self, seed: int) -> None:
        self.losing.seed(seed)
        self.set_clock(self.now)
        for ref in REFS[:2]:
            self.do(self.queue.open_adapter(ref, "d" * 64))
        for name, quotas in KEYS.items():
            self.add_key(name, quotas)
        for ref in REFS:
            self.enqueue(ref, "x")

    @rule(
        ref=st.sampled_from(REFS),
        agent=st.sampled_from(("x", "y")),
        delay_ms=st.sampled_from((0, 0, 0, 2_000)),
        deadline_ms=st.sampled_from((None, None, 5_000, 40_000)),
        priority=st.sampled_from(("normal", "high", "low")),
        stream=st.booleans(),
        key=st.sampled_from((None, *KEYS)),
    )
    def enqueue(self, ref: str, agent: str, **fields: Any) -> None:
        self.made += 1
        job = Job.parse(id=f"job{self.made}", ref=ref, agent=agent, prompt="hi", client="c", **fields)
        if error := self.model.refusal(job):
            self.refused(job, error)
            return
        outcome = self.do(self.queue.enqueue(job))
        assert outcome.created == (self.forgetful.sent == 1)
        accepted = ModelJob(
            job,
            outcome.state,
            due=self.now + job.delay_ms,
            deadline=None if job.deadline_ms is None else self.now + job.deadline_ms,
            watched=job.deadline_ms is not None,
        )
        self.model.accept(accepted)
        assert outcome.state == ("delayed" if job.delay_ms else "queued")

    @rule(ref=st.sampled_from(REFS), agent=st.sampled_from(("x", "y")))
    def enqueue_some(self, ref: str, agent: str) -> None:
        for stream in (True, False, True):
            self.enqueue(ref, agent, stream=stream)

    @rule(data=st.data())
    def enqueue_again(self, data: st.DataObject) -> None:
        """A repeat finds the job; another request of that id is refused."""
        known = self.pick(data)
        if known is not None:
            again = self.do(self.queue.enqueue(known.job))
            assert (known.state, False) == (again.state, again.created)
            self.refused(known.job.model_copy(update={"prompt": "other"}), JobConflict)

    @rule(
        target=claims,
        worker=st.sampled_from(WORKERS),
        n=st.integers(1, 5),
        share=st.integers(1, 5),
    )
    def claim(self, worker: str, n: int, share: int) -> Any:
        self.leased += 1
        lease = f"{worker}.{self.leased}"
        claim = self.do(self.queue.claim(worker, lease, REFS, n, 2, LEASE_MS, per_adapter=share))
        self.model.tick(self.now)
        assert len(claim.jobs) <= n
        running = [job for job in self.model.of("running") if job.worker == worker]
        assert not (claim.jobs and any(job.guilt for job in running)), "beside suspects nothing else is claimed"
        guilt = [self.job_of(job).guilt for job in claim.jobs]
        for job in claim.jobs:
            self.begun(job, worker, lease)
        if any(guilt):
            assert not running and claim.view.apart, "suspects are claimed by a worker that holds nothing"
            assert set(guilt) == {1} or len(guilt) == 1, "alone if they were lost twice, else among their like"
        return multiple(*((worker, job) for job in claim.jobs))

    @rule(target=claims, worker=st.sampled_from(WORKERS))
    def claim_all(self, worker: str) -> Any:
        return self.claim(worker, 8, 8)

    @rule(target=claims, worker=st.sampled_from(WORKERS))
    def claim_one(self, worker: str) -> Any:
        return self.claim(worker, 1, 1)

    def begun(self, claimed: ClaimedJob, worker: str, lease: str) -> None:
        job = self.model.jobs[claimed.job_id.removeprefix("0.")]
        assert job.state == "queued" and not self.model.overdue(job, self.now)
        assert self.model.admits.get(job.job.ref) != "paused" and not self.model.at_capacity(job.job.ref)
        job.attempts, job.fence = job.attempts + 1, job.fence + 1
        assert (job.attempts, job.lost, job.fence) == (claimed.attempt, claimed.lost, claimed.fence)
        job.state, job.lease, job.worker, job.suspect = "running", lease, worker, False
        job.lease_until = self.now + LEASE_MS

    @rule(held=claims)
    def renew(self, held: tuple[str, ClaimedJob]) -> None:
        _, claimed = held
        job = self.job_of(claimed)
        renewed = self.do(self.queue.renew([JobLease(claimed.job_id, claimed.lease)], LEASE_MS))
        holds, own = self.holds(claimed), claimed.lease in {job.settled_by, job.released_by}
        assert renewed.lost == (() if holds or own else (claimed.job_id,))
        assert renewed.cancelled == ((claimed.job_id,) if holds and job.cancel == "cancelled" else ())
        assert renewed.overdue == ((claimed.job_id,) if holds and job.cancel == "deadline" else ())
        if holds:
            job.lease_until = self.now + LEASE_MS
        self.refused_stale(job, claimed, stale=not holds and not own)

    def refused_stale(self, job: ModelJob, claimed: ClaimedJob, *, stale: bool) -> None:
        """Every refusal is counted, that of a repeat too; and a worker that is refused is not gone."""
        self.model.stale[job.job.ref] += stale * self.forgetful.sent
        if stale:
            self.model.lift(job, claimed.lease)

    @rule(
        held=consumes(claims),
        outcome=st.sampled_from(("succeeded", "succeeded", "failed", "retry", "dead", "cancelled", "expired")),
        used=st.sampled_from((7, 300)),
    )
    def settle(self, held: tuple[str, ClaimedJob], outcome: Any, used: int = 7) -> None:
        """Also stale ones: the bundle keeps claims whose lease was lost."""
        _, claimed = held
        job = self.job_of(claimed)
        holds = self.holds(claimed)
        told = {"text": claimed.lease, "finish_reason": "length", "prompt_tokens": 5, "completion_tokens": used - 5}
        settlement = Settlement(claimed.job_id, claimed.lease, outcome, **told)
        own = job.settled_by == claimed.lease
        [settled] = self.do(self.queue.settle([settlement]))
        self.refused_stale(job, claimed, stale=not holds and not own)
        if holds:
            self.settled(job, outcome, used)
        assert settled.outcome == ("settled" if holds or own else "stale")
        assert settled.state == job.state

    def settled(self, job: ModelJob, outcome: str, used: int) -> None:
        job.settled_by = job.lease
        if outcome == "retry" and job.cancel == "cancelled":
            outcome = "cancelled"
        elif outcome == "retry" and self.model.overdue(job, self.now):
            outcome = "expired"
        if outcome not in {"retry", "dead"}:
            self.model.end(job, outcome, used)
        elif outcome == "dead" or job.attempts - job.lost >= TERMS.max_attempts:
            self.model.end(job, "failed", used)
            job.dead = True
        else:
            job.retries += 1
            self.model.wait(job, "delayed")
            job.due = int(self.do(self.redis.zscore(self.keys.one("delayed"), job.job.id)))
            assert self.now < job.due <= self.now + TERMS.backoff_max_ms * 1.5

    @rule(held=consumes(claims))
    def release(self, held: tuple[str, ClaimedJob]) -> None:
        _, claimed = held
        job = self.job_of(claimed)
        holds = self.holds(claimed)
        self.do(self.queue.release([JobLease(claimed.job_id, claimed.lease)]))
        if not holds:
            self.model.lift(job, claimed.lease)
            return
        job.released_by = claimed.lease
        job.attempts -= 1
        if job.cancel == "cancelled":
            self.model.end(job, "cancelled")
        elif self.model.overdue(job, self.now):
            self.model.end(job, "expired")
        else:
            self.model.wait(job, "queued")

    @rule(held=consumes(claims))
    def lose(self, held: tuple[str, ClaimedJob]) -> None:
        """What ran a job died with it, and its worker says so."""
        _, claimed = held
        job, holds = self.job_of(claimed), self.holds(claimed)
        self.do(self.queue.lose([JobLease(claimed.job_id, claimed.lease)]))
        if holds:
            self.model.reap(job, self.now, returns=False)
            self.model.exonerate()

    @rule(held=claims, offset=st.integers(0, 2))
    def emit(self, held: tuple[str, ClaimedJob], offset: int) -> None:
        _, claimed = held
        job = self.job_of(claimed)
        delta = Delta(claimed.job_id, claimed.lease, claimed.attempt, offset, "x", (1,))
        lost = self.do(self.queue.emit([delta]))
        own = job.settled_by == claimed.lease
        assert lost == (() if self.holds(claimed) or own else (claimed.job_id,))
        self.refused_stale(job, claimed, stale=bool(lost))

    @rule(held=consumes(claims), others=st.sampled_from(WORKERS), outcome=st.sampled_from(("succeeded", "retry")))
    def freeze(self, held: tuple[str, ClaimedJob], others: str, outcome: str) -> None:
        """A worker sleeps past its lease, another may get the job, the first wakes and acts as if nothing was."""
        self.live_on()
        self.claim(others, 5, 5)
        self.renew(held)
        self.emit(held, 0)
        self.settle(held, outcome)

    @rule(
        held=claims,
        other=st.sampled_from(WORKERS),
        call=st.sampled_from(("succeeded", "retry", "release", "lose", "emit", "renew")),
    )
    def repeat_late(self, held: tuple[str, ClaimedJob], other: str, call: str) -> None:
        """A reply is lost for so long that the job has gone on without this worker, when it repeats the call."""
        calls: dict[str, Callable[[Any], None]] = {
            "release": self.release,
            "lose": self.lose,
            "emit": partial(self.emit, offset=0),
            "renew": self.renew,
        }
        repeated = calls.get(call, partial(self.settle, outcome=call))
        repeated(held)
        self.live_on()
        self.claim(other, 5, 5)
        repeated(held)

    @rule(worker=st.sampled_from(WORKERS))
    def give_up(self, worker: str) -> None:
        """What a worker can get fails at each attempt."""
        for _ in range(TERMS.max_attempts):
            for held in self.claim(worker, 5, 5).values:
                self.settle(held, "retry")
            self.set_clock(self.now + 2_000)

    @rule(held=consumes(claims))
    def vanish(self, held: tuple[str, ClaimedJob]) -> None:
        """A worker dies with a job: nobody speaks of that claim again."""

    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        job = self.pick(data)
        if job is None:
            return
        if job.state in WAITING:
            self.model.end(job, "cancelled")
        elif job.state == "running":
            job.cancel = "cancelled"
        assert job.state == self.do(self.queue.cancel(job.job.id))

    @rule(data=st.data())
    def expire(self, data: st.DataObject) -> None:
        job = self.pick(data)
        if job is None:
            return
        if self.model.overdue(job, self.now) and job.state not in ENDED:
            job.watched = False
            if job.state in WAITING:
                self.model.end(job, "expired")
            else:
                job.cancel = job.cancel or "deadline"
                self.expire_running(job)
        assert job.state == self.do(self.queue.expire(job.job.id))

    def expire_running(self, job: ModelJob) -> None:
        if job.lease_until > self.now:
            return
        model = self.model
        if self.now - model.last_tick > max(LEASE_MS // 2, 2000):
            model.calm_until = self.now + LEASE_MS
        model.last_tick = self.now
        if self.now >= model.calm_until:
            model.reap(job, self.now, returns=True)
            model.exonerate()

    @rule(worker=st.sampled_from(WORKERS))
    def tick(self, worker: str) -> None:
        view = self.do(self.queue.tick(worker))
        self.model.tick(self.now)
        assert view.now_ms == self.now
        depths = self.do(self.queue.depths())
        assert self.members("ready") == {adapter.ref for adapter in view.waiting}
        assert {adapter.ref: adapter.depth for adapter in view.waiting}.items() <= depths.items()

    @rule(ms=st.sampled_from((1, 500, 2_500, 6_000, 20_000)))
    def advance(self, ms: int) -> None:
        self.set_clock(self.now + ms)

    @rule()
    def live_on(self) -> None:
        """Twenty seconds during which workers come by each two: whatever lapsed is reaped."""
        for _ in range(10):
            self.set_clock(self.now + 2_000)
            self.tick("w1")
