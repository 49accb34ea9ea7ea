"""Operators in the claim machine: pause, close and resume, limits, redrive, purge, explain."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import precondition, rule

from lorapool.shared.errors import InvalidRequest, KeyConflict
from lorapool.shared.queue.explain import WORKER_GONE_MS
from lorapool.shared.queue.protocol import Limits
from tests.shared.queue.claim_bench import REFS
from tests.shared.queue.claim_invariants import ClaimInvariants
from tests.shared.queue.claim_model import WAITING, ModelJob, ModelKey

# Most of the time clients and workers are among themselves: one step in two may be an operator's.
SELDOM = precondition(lambda machine: machine.steps % 2 == 0)


class UpkeepRules(ClaimInvariants):
    """What operators do meanwhile."""

    @SELDOM
    @rule(ref=st.sampled_from(REFS[:2]), state=st.sampled_from(("open", "open", "paused", "closed")))
    def admit(self, ref: str, state: str) -> None:
        change = {"open": self.queue.resume, "paused": self.queue.pause, "closed": self.queue.close_adapter}
        self.do(change[state](ref))
        self.model.admits[ref] = state

    @SELDOM
    @rule(
        ref=st.sampled_from(REFS),
        max_depth=st.sampled_from((None, None, 2, 4)),
        max_inflight=st.sampled_from((None, None, 1, 3)),
        agent_window=st.sampled_from((None, None, 2)),
        weight=st.sampled_from((None, 2.0)),
    )
    def limit(self, ref: str, **limits: Any) -> None:
        told = self.do(self.upkeep.limits(ref, **limits))
        assert Limits(**limits) == told == self.do(self.upkeep.limits(ref))
        self.remember(ref, limits)

    @SELDOM
    @rule(max_depth=st.sampled_from((None, None, 3, 6)))
    def limit_pool(self, max_depth: int | None) -> None:
        assert Limits(max_depth=max_depth) == self.do(self.upkeep.limits(max_depth=max_depth))
        self.remember("*", {"max_depth": max_depth})

    def remember(self, ref: str, limits: dict[str, Any]) -> None:
        for name, value in limits.items():
            self.model.limits.pop((ref, name), None)
            if value is not None and name != "weight":
                self.model.limits[ref, name] = value

    @rule(data=st.data())
    def redrive(self, data: st.DataObject) -> None:
        """A dead letter becomes one new job, however often it is asked for; nothing else can be redriven."""
        dead = [job for job in self.model.jobs.values() if job.dead]
        job = data.draw(st.sampled_from(dead)) if dead else self.pick(data)
        if job is None:
            return
        if not job.redriven and not (job.dead and not job.purged):
            self.raises(InvalidRequest, self.upkeep.redrive(job.job.id))
        elif not job.redriven and (error := self.model.refusal(job.job)):
            self.raises(error, self.upkeep.redrive(job.job.id))
        else:
            self.redriven(job)

    def redriven(self, job: ModelJob) -> None:
        again = self.do(self.upkeep.redrive(job.job.id))
        assert again.created == (not job.redriven and self.forgetful.sent == 1)
        if not job.redriven:
            job.redriven = again.job_id.removeprefix("0.")
            deadline_ms = job.job.deadline_ms
            fresh = ModelJob(
                job.job.model_copy(update={"id": job.redriven}),
                "queued",
                due=self.now,
                deadline=None if deadline_ms is None else self.now + deadline_ms,
                watched=deadline_ms is not None,
            )
            self.model.accept(fresh)
        assert (f"0.{job.redriven}", self.model.jobs[job.redriven].state) == (again.job_id, again.state)

    @SELDOM
    @rule(data=st.data(), revoked=st.booleans())
    def change_key(self, data: st.DataObject, *, revoked: bool) -> None:
        """A key is revoked, or a new one has its name; what was used still counts."""
        name = data.draw(st.sampled_from(sorted(self.model.keys)))
        key = self.model.keys[name]
        if revoked:
            self.do(self.book.revoke(name))
            key.good = False
        elif key.good:
            self.raises(KeyConflict, self.book.add(name))
        else:
            self.add_key(name, {"jobs_per_minute": key.jobs_per_minute, "tokens_per_day": key.tokens_per_day})

    def add_key(self, name: str, quotas: dict[str, Any]) -> None:
        self.do(self.book.add(name, **quotas))
        self.model.keys.setdefault(name, ModelKey(**quotas)).good = True

    @SELDOM
    @rule(ref=st.sampled_from((None, *REFS)))
    def purge_dead(self, ref: str | None) -> None:
        gone = [job for job in self.model.jobs.values() if job.dead and not job.purged]
        gone = [job for job in gone if ref in {None, job.job.ref}]
        count = self.do(self.upkeep.purge_dead(ref)).count
        assert count == (len(gone) if self.forgetful.sent == 1 else 0)
        for job in gone:
            job.purged = True
        listed = {letter.job_id for letter in self.do(self.upkeep.dead()).letters}
        assert {f"0.{job.job.id}" for job in self.model.jobs.values() if job.dead and not job.purged} == listed

    @SELDOM
    @rule(ref=st.sampled_from(REFS))
    def purge_waiting(self, ref: str) -> None:
        gone = [job for job in self.model.of(*WAITING) if job.job.ref == ref]
        before = self.forgetful.lost["purge_waiting"]
        count = self.purged_waiting(ref)
        assert count == len(gone) or self.forgetful.lost["purge_waiting"] > before
        for job in gone:
            self.model.end(job, "cancelled")

    def purged_waiting(self, ref: str) -> int:
        count, cursor = 0, ""
        while True:
            purged = self.do(self.upkeep.purge_waiting(ref, cursor))
            count, cursor = count + purged.count, purged.cursor
            if not cursor:
                return count

    @SELDOM
    @rule(data=st.data())
    def explain(self, data: st.DataObject) -> None:
        job = self.pick(data)
        if job is not None:
            told = self.do(self.queue.explain(job.job.id))
            assert (job.state, True) == (told.state, told.reason in self.reasons(job)), told

    def reasons(self, job: ModelJob) -> set[str]:
        """The words that fit, by where the job is."""
        if job.state == "running":
            return {"worker_gone" if job.lease_until < self.now else "stopping" if job.cancel else "running"}
        if job.state != "queued":
            return {job.state}
        if self.model.admits.get(job.job.ref) == "paused":
            return {"paused"}
        if self.now - self.model.last_tick > WORKER_GONE_MS:
            return {"no_worker"}
        if job.suspect:
            return {"suspect"}
        return {"at_capacity"} if self.model.at_capacity(job.job.ref) else {"behind", "next"}
