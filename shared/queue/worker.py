"""WorkerQueue: what a worker asks of one partition: jobs to run, to keep them, and to write down what became of them.

One method an operation, one round trip for 64 jobs, safe to repeat after a lost reply. A lease that no longer holds
writes nothing. Knows nothing of models, batches or policy. All methods raise RedisUnreachable, RedisAuthFailed or
RedisFull besides what they name.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain

from lorapool.shared.connection import Partition
from lorapool.shared.errors import MalformedEntry, RedisFull
from lorapool.shared.queue import arguments, replies
from lorapool.shared.queue.protocol import Claim, Delta, JobLease, Renewed, Settled, Settlement, View
from lorapool.shared.scripts import answers, records


class WorkerQueue:
    """The queue of one partition, from a worker's side."""

    def __init__(self, partition: Partition) -> None:
        self.keys, self._server, self._blocking = partition.keys, partition.server, partition.blocking
        self._scripts = partition.scripts

    async def claim(
        self,
        worker: str,
        lease: str,
        preferences: Sequence[str],
        n: int,
        max_adapters: int,
        lease_ms: int,
        residents: Sequence[str] = (),
        per_adapter: int | None = None,
        suspects: int | None = None,
    ) -> Claim:
        """Take up to ``n`` (at most 64) jobs from the preferred adapters, in that order, under one lease; or instead,
        where it is this worker's turn to run them, up to ``suspects`` jobs that a worker vanished with.

        Without preferences, the worker says that it holds nothing and asks for those alone.
        ``lease`` must be unique to this claim; the same again returns what it took. Job ids under it are full.
        """
        n = min(n, arguments.MAX_JOBS)
        args = records.Claim(
            worker=worker,
            lease=lease,
            n=n,
            max_adapters=max_adapters,
            per_adapter=n if per_adapter is None else per_adapter,
            lease_ms=lease_ms,
            most_suspects=n if suspects is None else min(suspects, arguments.MAX_JOBS),
            residents=len(residents),
        )
        answer = await self._scripts.run("claim", *args, *residents, *preferences)
        return replies.claim(answer, lease, self.keys)

    async def tick(self, worker: str, residents: Sequence[str] = ()) -> View:
        """Promote what is due, reap lapsed leases, expire what is late (bounded), and look."""
        answer = await self._scripts.run("tick", *records.Tick(worker=worker), *residents)
        return replies.view(answer.decode(errors="replace"))

    async def renew(self, held: Sequence[JobLease], lease_ms: int) -> Renewed:
        """Extend leases; says which jobs are no longer ours, and which must stop: cancelled, or past their deadline."""
        lost: list[str] = []
        cancelled: list[str] = []
        overdue: list[str] = []
        for part in arguments.chunks(held):
            args = records.Renew(lease_ms=lease_ms)
            answer = answers.Renewal(*await self._scripts.run("renew", *args, *arguments.of_held(part)))
            lost += self._full_ids(answer.lost)
            cancelled += self._full_ids(answer.cancelled)
            overdue += self._full_ids(answer.overdue)
        return Renewed(tuple(lost), tuple(cancelled), tuple(overdue))

    async def emit(self, deltas: Sequence[Delta]) -> tuple[str, ...]:
        """Append to streamed jobs; returns the ids of jobs that are no longer ours, which got nothing."""
        lost: list[str] = []
        for part in arguments.chunks(deltas):
            lost += self._full_ids(
                await self._scripts.run("emit", *(arg for delta in part for arg in arguments.of_delta(delta)))
            )
        return tuple(lost)

    async def settle(self, settlements: Sequence[Settlement]) -> list[Settled]:
        """End attempts. ``stale``: the lease no longer held, and nothing was written. Same order."""
        settled: list[Settled] = []
        for part in arguments.chunks(settlements):
            args = chain.from_iterable(map(arguments.of_settlement, part))
            for settlement, answer in zip(part, await self._scripts.run("settle", *args), strict=True):
                settled.append(replies.settled(answer.decode(errors="replace"), settlement.job_id))
        return settled

    async def release(self, held: Sequence[JobLease]) -> None:
        """Give jobs back to the head of their stream, the attempt not burnt."""
        for part in arguments.chunks(held):
            await self._scripts.run("release", *arguments.of_held(part))

    async def lose(self, held: Sequence[JobLease]) -> None:
        """Say that what ran these jobs died or hung with them: each loss counts at once, as if its lease had lapsed.

        For the jobs to blame; ``release`` the others. Nothing of a lease that no longer holds.
        """
        for part in arguments.chunks(held):
            await self._scripts.run("lose", *arguments.of_held(part))

    async def wait_for_work(self, worker: str, timeout_s: float, *, own: bool = False) -> bool:
        """Sleep until work is signalled (True) or ``timeout_s`` passed (False). A hint: look in either case. ``own``:
        heed only what is signalled to this worker, for adapters that it ran lately."""
        block_s = self._blocking.block_s(timeout_s)
        idle = ("SET", self.keys.one(f"idle:{worker}"), 1, "PX", round(block_s * 1000) + 500)
        markers = (self.keys.wake(worker),) if own else (self.keys.wake(worker), self.keys.wake())
        pop = ("BZPOPMIN", *markers, block_s)
        try:
            _, popped = await self._blocking.pipeline([idle, pop])
        except RedisFull:  # took no mark, which is a hint; the wait took place
            return True
        if isinstance(popped, MalformedEntry):  # no marker of ours
            await self._server.pipeline([("UNLINK", marker) for marker in markers])
            return False
        return popped is not None

    async def control(self, worker: str, last_id: str, timeout_s: float) -> list[tuple[str, dict[str, str]]]:
        """Requests to a worker after ``last_id``: (entry id, fields: ``op`` cancel, ``job_id`` (full), ``lease``)."""
        try:
            entries = await self._blocking.read(self.keys.ctl(worker), last_id, timeout_s)
        except MalformedEntry:  # no stream, and requests are hints
            await self._server.command("UNLINK", self.keys.ctl(worker))
            return []
        return [(entry_id, replies.control(fields, self.keys)) for entry_id, fields in entries]

    def _full_ids(self, ids: bytes) -> list[str]:
        return [self.keys.full_id(bare) for bare in ids.decode(errors="replace").split()]
