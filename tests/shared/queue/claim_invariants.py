"""What must hold after every step of the claim machine: places, leases, gauges, records, counters and notices."""

from __future__ import annotations

from collections import Counter

from hypothesis.stateful import invariant

from lorapool.shared.queue import replies
from lorapool.shared.server.keys import LANES
from tests.shared.queue.claim_bench import REFS, ClaimBench
from tests.shared.queue.claim_model import ENDED, WAITING, ModelJob


class ClaimInvariants(ClaimBench):
    """The server agrees with the model."""

    @invariant()
    def places(self) -> None:
        """A job that has not ended is in exactly one place, its own; one that has is in none."""
        seen = self.do(self._places())
        assert Counter(self.place(job) for job in self.model.jobs.values() if job.state not in ENDED) == Counter(
            place for place, _ in seen
        )
        assert {(self.place(j), j.job.id) for j in self.model.jobs.values() if j.state not in ENDED} == set(seen)

    def place(self, job: ModelJob) -> str:
        if job.state == "delayed":
            return "delayed"
        if job.state == "running":
            return "leases"
        return "suspects" if job.suspect else f"stream:{job.job.ref}"

    async def _places(self) -> list[tuple[str, str]]:
        found: list[tuple[str, str]] = []
        for name in ("delayed", "leases", "suspects"):
            found += [(name, job.decode()) for job in await self.redis.zrange(self.keys.one(name), 0, -1)]
        for ref in REFS:
            for lane in LANES:
                entries = await self.redis.xrange(self.keys.stream(ref, lane))
                found += [(f"stream:{ref}", entry[b"job"].decode()) for _, entry in entries]
        return found

    @invariant()
    def leases(self) -> None:
        """A lease runs from its last renewal by its owner, and from nothing else."""
        found = self.do(self.redis.zrange(self.keys.one("leases"), 0, -1, withscores=True))
        assert {job.job.id: job.lease_until for job in self.model.of("running")} == {
            job.decode(): int(until) for job, until in found
        }

    @invariant()
    def gauges(self) -> None:
        """Depths, windows and loads are what the places say; `ready` is exactly what can be claimed."""
        jobs = self.model.jobs.values()
        queued = Counter(j.job.ref for j in jobs if j.state == "queued" and not j.suspect)
        running = Counter(j.job.ref for j in jobs if j.state == "running")
        held = Counter(j.worker for j in jobs if j.state == "running")
        assert queued == self.hash("waiting", without="*")
        assert queued.total() == self.hash("waiting").get("*", 0)
        assert running == self.hash("running")
        assert held == self.hash("held")
        for ref in REFS:
            assert Counter(j.job.agent for j in jobs if j.job.ref == ref and j.state in WAITING) == self.hash(
                f"window:{ref}"
            )
        held_back = {ref for ref in REFS if self.model.admits.get(ref) == "paused" or self.model.at_capacity(ref)}
        assert set(queued) - held_back == self.members("ready")
        assert set(queued) | set(running) == self.members("served")
        assert {j.job.id for j in jobs if j.watched} == self.members("deadlines")

    @invariant()
    def records(self) -> None:
        """The record agrees, and an answer once given never changes."""
        found = self.do(self._records())
        for job, (fields, payload, ttl_ms) in zip(self.model.jobs.values(), found, strict=True):
            record = replies.record(fields)
            assert record is not None
            names = ("state", "lease", "attempts", "lost", "fence", "retries")
            assert {n: str(getattr(job, n)) for n in names} == {n: record[n] for n in names}
            assert bool(payload) == (job.state not in ENDED or (job.dead and not job.purged))
            if job.state in ENDED:
                answer = {name: record.get(name) for name in ("state", "text", "finished_ms", "error", "message")}
                job.answer = job.answer or answer
                assert job.answer == answer
                assert ttl_ms > 0

    async def _records(self) -> list[tuple[dict[bytes, bytes], int, int]]:
        pipe = self.redis.pipeline(transaction=False)
        for job_id in self.model.jobs:
            pipe.hgetall(self.keys.job(job_id))
            pipe.exists(self.keys.payload(job_id))
            pipe.pttl(self.keys.job(job_id))
        found = await pipe.execute()
        return list(zip(found[::3], found[1::3], found[2::3], strict=True))

    @invariant()
    def counters(self) -> None:
        """Counters are what happened, by adapter; recomputed from the records and from refusals."""
        for ref in REFS:
            mine = [job for job in self.model.jobs.values() if job.job.ref == ref]
            expected = Counter(job.state for job in mine if job.state in ENDED)
            expected += Counter(
                submitted=len(mine), claimed=sum(job.fence for job in mine), stale=self.model.stale[ref]
            )
            expected += Counter(
                reaped=sum(job.lost for job in mine),
                lifted=sum(job.lifted for job in mine),
                retried=sum(job.retries for job in mine),
                released=sum(job.fence - job.attempts for job in mine),
                dead=sum(job.dead for job in mine),
            )
            stats = self.do(self.queue.counters.of_adapter(ref))
            assert {n: expected[n] for n in expected if expected[n]} == {
                n: v for n, v in stats.items() if n in expected and v
            }

    @invariant()
    def quotas(self) -> None:
        """A key has used what its jobs of this day reserved and, once they ended, used; every few steps."""
        if self.steps % 3 == 0:
            for key in self.model.keys.values():
                key.look(self.now)
            found = {use.key.name: (use.jobs, use.tokens) for use in self.do(self.book.list())}
            assert {name: (key.jobs, key.tokens) for name, key in self.model.keys.items()} == found

    @invariant()
    def notices(self) -> None:
        """One notice for each end."""
        heard = [notice.job_id for notice in self.do(self.queue.inbox("c", "0-0", 0))]
        assert sorted(f"0.{job.job.id}" for job in self.model.of(*ENDED)) == sorted(heard)

    @invariant()
    def healthy(self) -> None:
        """A check finds nothing, whatever has happened; every few steps."""
        self.steps += 1
        if self.steps % 6 == 0:
            assert [] == self.fsck()
