"""Operators in the claim machine: pause and resume, redrive, purge."""

from __future__ import annotations

from hypothesis import strategies as st
from hypothesis.stateful import rule

from lorapool.shared.errors import InvalidRequest, QueueFull
from tests.shared.claim_bench import REFS
from tests.shared.claim_invariants import ClaimInvariants
from tests.shared.claim_model import TERMS, WAITING, ModelJob


class UpkeepRules(ClaimInvariants):
    """What operators do meanwhile."""

    @rule(ref=st.sampled_from(REFS[:2]), paused=st.booleans())
    def pause(self, ref: str, paused: bool) -> None:
        self.do(self.broker.pause(ref) if paused else self.broker.resume(ref))
        self.model.paused = self.model.paused - {ref} | ({ref} if paused else set())

    @rule(data=st.data(), twice=st.booleans())
    def redrive(self, data: st.DataObject, twice: bool) -> None:
        """A dead letter becomes one new job, however often it is asked for; nothing else can be redriven."""
        dead = [job for job in self.model.jobs.values() if job.dead]
        job = data.draw(st.sampled_from(dead)) if dead else self.pick(data)
        if job is None:
            return
        if not job.redriven and not (job.dead and not job.purged):
            self.redrive_refused(job, InvalidRequest)
        elif not job.redriven and self.model.window(job.job.ref, job.job.agent) >= TERMS.agent_window:
            self.redrive_refused(job, QueueFull)
        else:
            for _ in range(1 + twice):
                self.redriven(job)

    def redriven(self, job: ModelJob) -> None:
        again = self.do(self.upkeep.redrive(job.job.id))
        assert again.created == (not job.redriven)
        if again.created:
            job.redriven = again.job_id.removeprefix("0.")
            deadline_ms = job.job.deadline_ms
            self.model.jobs[job.redriven] = ModelJob(
                job.job.model_copy(update={"id": job.redriven}),
                "queued",
                due=self.now,
                deadline=None if deadline_ms is None else self.now + deadline_ms,
                watched=deadline_ms is not None,
            )
        assert (f"0.{job.redriven}", self.model.jobs[job.redriven].state) == (again.job_id, again.state)

    def redrive_refused(self, job: ModelJob, error: type[Exception]) -> None:
        try:
            outcome = self.do(self.upkeep.redrive(job.job.id))
        except error:
            return
        raise AssertionError(f"expected {error.__name__}, got {outcome}")

    @rule(ref=st.sampled_from((None, *REFS)), twice=st.booleans())
    def purge_dead(self, ref: str | None, twice: bool) -> None:
        for _ in range(1 + twice):
            gone = [job for job in self.model.jobs.values() if job.dead and not job.purged]
            gone = [job for job in gone if ref in {None, job.job.ref}]
            assert len(gone) == self.do(self.upkeep.purge_dead(ref)).count
            for job in gone:
                job.purged = True
        listed = {letter.job_id for letter in self.do(self.upkeep.dead()).letters}
        assert {f"0.{job.job.id}" for job in self.model.jobs.values() if job.dead and not job.purged} == listed

    @rule(ref=st.sampled_from(REFS), twice=st.booleans())
    def purge_waiting(self, ref: str, twice: bool) -> None:
        for _ in range(1 + twice):
            gone = [job for job in self.model.of(*WAITING) if job.job.ref == ref]
            assert len(gone) == self.purged_waiting(ref)
            for job in gone:
                self.model.end(job, "cancelled")

    def purged_waiting(self, ref: str) -> int:
        count, cursor = 0, ""
        while True:
            purged = self.do(self.upkeep.purge_waiting(ref, cursor))
            count, cursor = count + purged.count, purged.cursor
            if not cursor:
                return count
