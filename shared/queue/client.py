"""ClientQueue: what clients ask of one partition: to take jobs, to end them, and what has become of them.

One method an operation, one round trip each (a call of many jobs goes in parts), safe to repeat after a lost reply: the
repeat returns the first outcome. Time is the server's. All methods raise RedisUnreachable, RedisAuthFailed or RedisFull
besides what they name.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from itertools import chain

from redis.exceptions import RedisError, ResponseError

from lorapool.shared.connection import Partition
from lorapool.shared.errors import Fate, LorapoolError, MalformedEntry, RedisFull, UnknownJob
from lorapool.shared.fleet.membership import Membership
from lorapool.shared.job import Job, JobState
from lorapool.shared.malformed import number, required, text_map
from lorapool.shared.queue import arguments, replies
from lorapool.shared.queue.explain import UNSURE_OF_WORKERS, explanation, with_workers
from lorapool.shared.queue.protocol import Enqueued, Explanation, Notice, StreamItem
from lorapool.shared.scripts import records
from lorapool.shared.server.keys import bare_id
from lorapool.shared.server.server import Command
from lorapool.shared.server.terms import Terms

INBOX_ENTRIES = 32  # of one read: each may bring 64 answers, and the reader's event loop stands still over them


class ClientQueue:
    """``members`` are asked where a waiting job is explained by the workers that are there."""

    def __init__(self, partition: Partition, members: Membership) -> None:
        self.keys, self._server, self._blocking = partition.keys, partition.server, partition.blocking
        self._scripts, self._members = partition.scripts, members

    def full_id(self, job_id: str) -> str:
        """``<id>`` or ``<p>.<id>`` → ``<p>.<id>`` of this partition."""
        return self.keys.full_id(bare_id(job_id))

    async def enqueue(self, job: Job) -> Enqueued:
        """Accept a job, or find that the same request is there already.

        Raises JobConflict, UnknownAdapter, AdapterNotReady, AdapterClosed, QueueFull, UnknownKey, QuotaExceeded,
        InvalidRequest, PayloadTooLarge.
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
                outcomes |= {
                    index: replies.enqueued(answer.decode(errors="replace"), job, self.keys)
                    for (index, job), answer in zip(batch, answers, strict=True)
                }
        return [outcomes[index] for index in range(len(jobs))]

    def _packed(
        self, jobs: Sequence[Job], outcomes: dict[int, Enqueued | LorapoolError]
    ) -> Iterator[tuple[int, records.Enqueue]]:
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
        """The state afterwards: ``cancelled``, or ``running`` until its worker lets go. Raises UnknownJob."""
        return self._state(job_id, await self._scripts.run("cancel", *records.OneJob(id=bare_id(job_id))))

    async def expire(self, job_id: str) -> JobState:
        """End a job whose deadline has passed and which no living worker has. Raises UnknownJob."""
        return self._state(job_id, await self._scripts.run("expire", *records.OneJob(id=bare_id(job_id))))

    async def explain(self, job_id: str) -> Explanation:
        """Why that job is where it is. Raises UnknownJob, MalformedEntry."""
        facts = text_map(await self._scripts.run("explain", *records.OneJob(id=bare_id(job_id))))
        if not facts:
            raise UnknownJob(f"job {self.full_id(job_id)} is not known: never accepted here, or long forgotten")
        loading = await self._members.loading(facts["worker"]) if facts["state"] == JobState.RUNNING else frozenset()
        full_id = self.full_id(job_id)
        judged = required(f"job {full_id}", lambda: explanation(full_id, facts, loading))
        return with_workers(judged, await self._members.all()) if judged.reason in UNSURE_OF_WORKERS else judged

    async def get(self, job_id: str) -> dict[str, str | bytes] | None:
        """The job's record as stored (``detail`` stays bytes), or None."""
        [record] = await self.get_many([job_id])
        return record

    async def get_many(self, job_ids: Sequence[str]) -> list[dict[str, str | bytes] | None]:
        """The records of many jobs in one round trip."""
        hashes = await self._server.pipeline([("HGETALL", self.keys.job(job_id)) for job_id in job_ids])
        return [replies.record(fields) for fields in hashes]

    async def results(self, job_ids: Sequence[str]) -> list[dict[str, str | bytes] | None]:
        """As ``get_many``, but only the fields that tell of an end: half the bytes, and one reply for 64 jobs."""
        records: list[dict[str, str | bytes] | None] = []
        for part in arguments.chunks(job_ids):
            ids = (bare_id(job_id) for job_id in part)
            answers = await self._scripts.run("results", *ids)
            records += map(replies.result, answers)
        return records

    async def states(self, job_ids: Sequence[str]) -> list[JobState | MalformedEntry | None]:
        """A state for each, None where there is no record; one call for 64 jobs."""
        states: list[JobState | MalformedEntry | None] = []
        for part in arguments.chunks(job_ids):
            answers = await self._scripts.run("states", *(bare_id(job_id) for job_id in part))
            states += map(replies.state, answers)
        return states

    async def shed(self, job_ids: Sequence[str], keep_s: float) -> None:
        """Keep the records of those that have ended for ``keep_s`` more only: their answers are where they belong."""
        head = records.Shed(ttl_ms=round(keep_s * 1000))
        for part in arguments.chunks(job_ids):
            await self._scripts.run("shed", *head, *(bare_id(job_id) for job_id in part))

    async def window(self, ref: str, agent: str, key: str | None = None) -> tuple[int, int]:
        """How many undelivered jobs the agent has on the adapter, and how many it may have, by that key."""
        asked: list[Command] = [
            ("HGET", self.keys.window(ref), agent),
            ("HGET", self.keys.adapter(ref), "agent_window"),
        ]
        asked += [] if key is None else [("HGET", self.keys.key(key), "window")]
        waiting, *limits = await self._server.pipeline(asked)
        limit = next((text for text in reversed(limits) if text), None)  # a key's word goes before its adapter's
        return int(number(waiting)), int(number(limit, Terms().agent_window))

    async def inbox(self, client: str, last_id: str, timeout_s: float) -> list[Notice]:
        """Notices after ``last_id`` ("0-0" at first), waiting up to ``timeout_s`` for one."""
        all_read: Command = ("UNLINK", self.keys.unread(client))
        entries = await self._blocking.read(self.keys.inbox(client), last_id, timeout_s, INBOX_ENTRIES, first=all_read)
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

    def _state(self, job_id: str, state: bytes | None) -> JobState:
        known = replies.state(state)
        if isinstance(known, JobState):
            return known
        raise known or UnknownJob(f"job {self.full_id(job_id)} is not known: never accepted here, or long forgotten")


def _unnamed(error: RedisError) -> LorapoolError:
    unnamed = LorapoolError(f"the Redis server answered with an error that lorapool has no name for: {error}")
    unnamed.unsure = True
    return unnamed
