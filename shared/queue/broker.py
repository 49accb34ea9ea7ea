"""Broker: one method an operation, one round trip each, on one partition.

Knows the Lua texts and the shapes of their replies. Every method is safe to repeat after a lost reply: the
repeat returns the first outcome. Time is the server's. Knows nothing of models, batches or policy. All methods
raise RedisUnreachable, RedisAuthFailed or RedisFull besides what they name.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping, Sequence
from itertools import chain
from typing import Literal

from redis.asyncio import Redis
from redis.exceptions import RedisError, ResponseError

from lorapool.shared.errors import Fate, LorapoolError, MalformedEntry, RedisFull, UnknownAdapter, UnknownJob
from lorapool.shared.fleet.counters import Counters
from lorapool.shared.fleet.membership import Membership
from lorapool.shared.fleet.tally import Tally
from lorapool.shared.job import Job, JobState
from lorapool.shared.malformed import readable, required, text_map
from lorapool.shared.queue import arguments, replies
from lorapool.shared.queue.explain import UNSURE_OF_WORKERS, explanation, with_workers
from lorapool.shared.queue.protocol import (
    Backlog,
    Claim,
    ClaimedJob,
    Delta,
    Enqueued,
    Explanation,
    Held,
    Notice,
    Renewed,
    Settled,
    Settlement,
    StreamItem,
    View,
    WaitingAdapter,
)
from lorapool.shared.scripts import Scripts
from lorapool.shared.server.connection import Arg, Command, Server
from lorapool.shared.server.keys import LANES, Keys, PoolKeys, bare_id
from lorapool.shared.server.terms import Terms

__all__ = [
    "Broker",
    "Claim",
    "ClaimedJob",
    "Delta",
    "Enqueued",
    "Explanation",
    "Held",
    "Notice",
    "Renewed",
    "Settled",
    "Settlement",
    "StreamItem",
    "View",
    "WaitingAdapter",
]

INBOX_ENTRIES = 32  # of one read: each may bring 64 answers, and the reader's event loop stands still over them


class Broker:
    """The queue of one partition. ``clock`` names a key that tests set the time with; None is the server's time."""

    def __init__(self, redis: Redis, keys: Keys, clock: str | None = None, *, terms: Terms | None = None) -> None:
        self.keys = keys
        self._server = Server(redis)
        self._blocking = self._server.for_blocking()
        self._scripts = Scripts(self._server, keys.prefix, terms or Terms(), clock)
        self._members = Membership(self._server, PoolKeys(keys.pool), self._scripts)
        self.tally = Tally(self._server, self._scripts, keys)
        self.counters = Counters(self._server, self._scripts, keys)

    async def close(self) -> None:
        """Give back the connections of blocking reads; the Redis client stays its owner's."""
        await self._blocking.aclose()

    async def ping(self) -> None:
        """Raises RedisUnreachable or RedisAuthFailed if the server cannot serve us."""
        await self._server.command("PING")

    def full_id(self, job_id: str) -> str:
        """``<id>`` or ``<p>.<id>`` → ``<p>.<id>`` of this partition."""
        return self.keys.full_id(bare_id(job_id))

    # -- clients

    async def enqueue(self, job: Job) -> Enqueued:
        """Accept a job, or find that the same request is there already.

        Raises JobConflict, UnknownAdapter, AdapterNotReady, AdapterClosed, QueueFull, InvalidRequest, PayloadTooLarge.
        """
        [outcome] = await self.enqueue_many([job])
        if isinstance(outcome, LorapoolError):
            raise outcome
        return outcome

    async def enqueue_many(self, jobs: Sequence[Job]) -> list[Enqueued | LorapoolError]:
        """As ``enqueue`` for each, in the same order; a refusal stands in its job's place, with its id and its fate.

        They travel in parts. What is accepted stays accepted, whatever becomes of later parts; once the server does not
        answer, no further part is sent. It raises nothing of what it names: it stands in the jobs' places.
        """
        outcomes: dict[int, Enqueued | LorapoolError] = {}
        away: LorapoolError | None = None
        for part in arguments.parts(self._packed(jobs, outcomes)):
            batch = [(index, jobs[index]) for index, _ in part]
            if away is not None:
                outcomes |= {index: away.of_job(self.keys.full_id(job.id), Fate.NOT_QUEUED) for index, job in batch}
                await asyncio.sleep(0)
                continue
            try:
                answers = await self._scripts.run("enqueue", *chain.from_iterable(args for _, args in part))
            except LorapoolError as error:
                away = None if isinstance(error, RedisFull) else error
                outcomes |= self._refused(batch, error)
            except RedisError as error:  # a reply that has no name here
                outcomes |= self._refused(batch, _unnamed(error))
            else:
                told = zip(batch, answers, strict=True)
                outcomes |= {
                    index: replies.enqueued(answer.decode(errors="replace"), job, self.keys)
                    for (index, job), answer in told
                }
        return [outcomes[index] for index in range(len(jobs))]

    def _packed(
        self, jobs: Sequence[Job], outcomes: dict[int, Enqueued | LorapoolError]
    ) -> Iterator[tuple[int, list[Arg]]]:
        """What is sent of each job; of one that cannot be, the refusal among the outcomes."""
        for index, job in enumerate(jobs):
            try:
                yield index, arguments.of_job(job)
            except LorapoolError as refusal:
                outcomes[index] = refusal.of_job(self.keys.full_id(job.id), Fate.NOT_QUEUED)

    def _refused(self, batch: Sequence[tuple[int, Job]], error: LorapoolError) -> dict[int, Enqueued | LorapoolError]:
        """One error of a call, as each of its jobs' own."""
        fate = Fate.UNKNOWN if error.unsure else Fate.NOT_QUEUED
        return {index: error.of_job(self.keys.full_id(job.id), fate) for index, job in batch}

    async def cancel(self, job_id: str) -> JobState:
        """The state afterwards: ``cancelled``, or ``running`` where its worker was told. Raises UnknownJob."""
        return self._state(job_id, await self._scripts.run("cancel", bare_id(job_id)))

    async def expire(self, job_id: str) -> JobState:
        """End a job whose deadline has passed and which no living worker has. Raises UnknownJob."""
        return self._state(job_id, await self._scripts.run("expire", bare_id(job_id)))

    async def explain(self, job_id: str) -> Explanation:
        """Why that job is where it is. Raises UnknownJob, MalformedEntry."""
        facts = text_map(await self._scripts.run("explain", bare_id(job_id)))
        if not facts:
            raise UnknownJob(f"job {self.full_id(job_id)} is not known: never accepted here, or long forgotten")
        loading = await self._loading(facts["worker"]) if facts["state"] == JobState.RUNNING else frozenset()
        full_id = self.full_id(job_id)
        found = required(f"job {full_id}", lambda: explanation(full_id, facts, loading))
        return with_workers(found, await self._members.all()) if found.reason in UNSURE_OF_WORKERS else found

    async def get(self, job_id: str) -> dict[str, str | bytes] | None:
        """The job's record as stored (``detail`` stays bytes), or None."""
        [record] = await self.get_many([job_id])
        return record

    async def get_many(self, job_ids: Sequence[str]) -> list[dict[str, str | bytes] | None]:
        """The records of many jobs in one round trip."""
        found = await self._server.pipeline([("HGETALL", self.keys.job(job_id)) for job_id in job_ids])
        return [replies.record(fields) for fields in found]

    async def results(self, job_ids: Sequence[str]) -> list[dict[str, str | bytes] | None]:
        """As ``get_many``, but only the fields that tell of an end: half the bytes, and one reply for 64 jobs."""
        records: list[dict[str, str | bytes] | None] = []
        for part in arguments.chunks(job_ids):
            ids = (bare_id(job_id) for job_id in part)
            found = await self._scripts.run("results", len(replies.RESULT_FIELDS), *replies.RESULT_FIELDS, *ids)
            records += map(replies.result, found)
        return records

    async def states(self, job_ids: Sequence[str]) -> list[JobState | MalformedEntry | None]:
        """A state for each, None where there is no record; one call for 64 jobs."""
        states: list[JobState | MalformedEntry | None] = []
        for part in arguments.chunks(job_ids):
            found = await self._scripts.run("states", *(bare_id(job_id) for job_id in part))
            states += map(replies.state, found)
        return states

    async def inbox(self, client: str, last_id: str, timeout_s: float) -> list[Notice]:
        """Notices after ``last_id`` ("0-0" at first), waiting up to ``timeout_s`` for one."""
        heard: Command = ("UNLINK", self.keys.unread(client))
        entries = await self._blocking.read(self.keys.inbox(client), last_id, timeout_s, INBOX_ENTRIES, first=heard)
        return [notice for entry in entries for notice in replies.notices(*entry, self.keys)]

    async def inbox_written(self, client: str) -> int:
        """How many entries were ever written to that inbox (0 when it is gone): to see that none was trimmed unread."""
        try:
            facts = await self._server.command("XINFO STREAM", self.keys.inbox(client))
        except ResponseError as error:
            if "no such key" in str(error).lower():
                return 0
            raise
        return int(facts["entries-added"])

    async def tokens(self, job_id: str, last_id: str, timeout_s: float) -> list[StreamItem]:
        """What a streamed job has emitted after ``last_id`` ("0-0" at first), waiting up to ``timeout_s`` for more."""
        entries = await self._blocking.read(self.keys.tokens(job_id), last_id, timeout_s)
        return [replies.token_item(entry_id, fields) for entry_id, fields in entries]

    # -- workers

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
        apart = n if suspects is None else min(suspects, arguments.MAX_JOBS)
        numbers = (n, max_adapters, n if per_adapter is None else per_adapter, lease_ms, apart, len(residents))
        answer = await self._scripts.run("claim", worker, lease, *numbers, *residents, *preferences)
        return replies.claim(answer, lease, self.keys)

    async def tick(self, worker: str, residents: Sequence[str] = ()) -> View:
        """Promote what is due, reap lapsed leases, expire what is late (bounded), and look."""
        return replies.view((await self._scripts.run("tick", worker, *residents)).decode(errors="replace"))

    async def renew(self, held: Sequence[Held], lease_ms: int) -> Renewed:
        """Extend leases; says which jobs are no longer ours, and which must stop: cancelled, or past their deadline."""
        lost: list[str] = []
        cancelled: list[str] = []
        overdue: list[str] = []
        for part in arguments.chunks(held):
            answers = await self._scripts.run("renew", lease_ms, *arguments.of_held(part))
            for told, ids in zip((lost, cancelled, overdue), answers, strict=True):
                told.extend(self._full_ids(ids))
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

    async def release(self, held: Sequence[Held]) -> None:
        """Give jobs back to the head of their stream, the attempt not burnt."""
        for part in arguments.chunks(held):
            await self._scripts.run("release", *arguments.of_held(part))

    async def lose(self, held: Sequence[Held]) -> None:
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

    async def send_control(self, worker: str, request: Mapping[str, str]) -> None:
        """Ask a worker for something: ``op`` and its arguments."""
        key = self.keys.ctl(worker)
        fields: list[Arg] = [part for pair in request.items() for part in pair]
        add: Command = ("XADD", key, "MAXLEN", "~", 1000, "*", *fields)
        await self._server.pipeline([add, ("PEXPIRE", key, 3_600_000)])

    # -- adapters and numbers

    async def open_adapter(self, ref: str, digest: str, **limits: float) -> None:
        """Let an adapter take jobs. ``limits``: max_depth, max_inflight, agent_window, weight."""
        unknown = limits.keys() - {"max_depth", "max_inflight", "agent_window", "weight"}
        assert not unknown, f"unknown limits {unknown}"
        await self._scripts.run("open", ref, digest, *(arg for pair in limits.items() for arg in pair))

    async def pause(self, ref: str) -> None:
        """Claim no more jobs of that adapter; it still takes them. Raises UnknownAdapter."""
        await self._set_state(ref, "paused")

    async def resume(self, ref: str) -> None:
        """Take and claim its jobs again, after ``pause`` or ``close_adapter``. Raises UnknownAdapter."""
        await self._set_state(ref, "open")

    async def close_adapter(self, ref: str) -> None:
        """Take no new jobs for that adapter; those waiting are still served. Raises UnknownAdapter."""
        await self._set_state(ref, "closed")

    async def adapter(self, ref: str) -> dict[str, str]:
        """The queue's own record of an adapter: state, digest, limits, last claim. Empty when it was never opened."""
        return text_map(await self._server.command("HGETALL", self.keys.adapter(ref)))

    async def stats(self, ref: str) -> dict[str, int | float]:
        """The counters of one adapter, monotone."""
        return replies.numbers(await self._server.command("HGETALL", self.keys.stats(ref)))

    async def agent_stats(self, agent: str) -> dict[str, int | float]:
        """The same counters of one agent."""
        return replies.numbers(await self._server.command("HGETALL", self.keys.agent(agent)))

    async def counted(self, kind: Literal["stats", "agent"]) -> dict[str, dict[str, int | float]]:
        """The counters of every adapter (``stats``) or agent that ever had a job, by ref or agent; scans the keys."""
        prefix = f"{self.keys.prefix}{kind}:"
        keys = await self._server.scan(f"{prefix}*")
        found = await self._server.pipeline([("HGETALL", key) for key in keys])
        named = readable(
            "counters", zip(keys, found, strict=True), lambda one: (one[0].decode(), replies.numbers(one[1]))
        )
        return {key.removeprefix(prefix): counted for key, counted in named}

    async def depths(self) -> dict[str, int]:
        """Waiting jobs by adapter ref, all priorities; adapters without any are left out."""
        waiting = await self._server.command("HGETALL", self.keys.one("waiting"))
        return {ref: depth for ref, depth in replies.whole_numbers(waiting).items() if ref != "*"}

    async def backlog(self) -> Backlog:
        """What waits and what runs now, and the longest wait."""
        waiting, running, now = await self._server.pipeline(
            [("HGETALL", self.keys.one("waiting")), ("HGETALL", self.keys.one("running")), ("TIME",)]
        )
        depths = {ref: depth for ref, depth in replies.whole_numbers(waiting).items() if ref != "*"}
        streams = [self.keys.stream(ref, lane) for ref in depths for lane in LANES]
        heads = await self._server.pipeline([("XRANGE", stream, "-", "+", "COUNT", 1) for stream in streams])
        since = readable("head of a stream", filter(None, heads), lambda found: int(found[0][0].partition(b"-")[0]))
        now_ms = int(now[0]) * 1000 + int(now[1]) // 1000
        return Backlog(depths, replies.whole_numbers(running), max(0, now_ms - min(since)) if since else None)

    # -- within

    async def _set_state(self, ref: str, state: str) -> None:
        if await self._scripts.run("set_adapter_state", ref, state) is None:
            raise UnknownAdapter(f"adapter {ref} was never opened in this pool")

    async def _loading(self, worker: str) -> frozenset[str]:
        """The adapters that worker says it is loading now."""
        refs = await self._server.command("HGET", PoolKeys(self.keys.pool).worker(worker), "loading")
        return frozenset(refs.decode(errors="replace").split()) if refs else frozenset()

    def _state(self, job_id: str, state: bytes | None) -> JobState:
        found = replies.state(state)
        if isinstance(found, JobState):
            return found
        raise found or UnknownJob(f"job {self.full_id(job_id)} is not known: never accepted here, or long forgotten")

    def _full_ids(self, ids: bytes) -> list[str]:
        return [self.keys.full_id(bare) for bare in ids.decode(errors="replace").split()]


def _unnamed(error: RedisError) -> LorapoolError:
    unnamed = LorapoolError(f"the Redis server answered with an error that lorapool has no name for: {error}")
    unnamed.unsure = True
    return unnamed
