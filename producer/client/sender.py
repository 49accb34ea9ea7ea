"""Sender: what a caller asks for becomes jobs, jobs are sent, and their handles or errors come back.

Knows names, partitions, the outbox and the inbox's tickets. Long lists are worked through in slices, between which the
caller's event loop goes on. Waits for no job's end.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import islice
from typing import Any, TypeVar

from lorapool.producer.client.adapters import Adapters
from lorapool.producer.client.handle import JobHandle
from lorapool.producer.client.inbox import Inbox
from lorapool.producer.client.outbox import Outbox
from lorapool.producer.client.request import Request, check_on_lost
from lorapool.producer.client.slices import Slices
from lorapool.producer.client.ticket import Copy, Ticket
from lorapool.shared.errors import ClientClosed, Fate, ForeignClient, LorapoolError, QueueFull, RedisUnreachable
from lorapool.shared.job import BASE_REF, Job
from lorapool.shared.queue.client import ClientQueue
from lorapool.shared.queue.protocol import Enqueued
from lorapool.shared.server.keys import new_job_id, split_id

BATCH = 512  # requests that are jobs at a time: what holds the event loop up is seeing many objects at once
AWAY = RedisUnreachable | ClientClosed | ForeignClient

Item = Request | Mapping[str, Any] | Sequence[Any]
Asked = dict[int, tuple[Job, str]]  # by place in the call: the job, and what to do when it is lost
Answers = dict[int, JobHandle | LorapoolError]
Room = tuple[str, ...]
T = TypeVar("T")


class Sender:
    """``agent`` and ``client`` are the names that jobs are counted under and whose inbox hears of their ends."""

    def __init__(
        self, queue: ClientQueue, adapters: Adapters, inbox: Inbox, outbox: Outbox, agent: str, client: str
    ) -> None:
        self._queue, self._adapters = queue, adapters
        self._inbox, self._outbox = inbox, outbox
        self._agent, self._client = agent, client

    async def submit(self, request: Request, *, wait: bool) -> JobHandle:
        """See ``Client.submit``."""
        job = await self._job(request)
        ticket = self._ticket(job, request.on_lost)
        while True:
            try:
                return self._handle(job, ticket, await self._outbox.enqueue(job))
            except QueueFull as full:
                if not wait:
                    raise
                await asyncio.sleep(full.retry_after_s)

    async def submit_many(
        self, requests: Iterable[Item], give_up_at: float, on_lost: str
    ) -> list[JobHandle | LorapoolError]:
        """Those refused for want of room are tried again until ``give_up_at`` (monotonic seconds).

        Once the server does not answer, nothing more is sent.
        """
        check_on_lost(on_lost)
        answers: Answers = {}
        waiting: Asked = {}
        away: LorapoolError | None = None
        for batch in _batches(enumerate(requests)):
            asked, away = await self._jobs(batch, on_lost, answers, away)
            away = await self._send(asked, answers, away)
            if give_up_at > 0:
                waiting |= _refused(asked, answers)
        while waiting:
            pause_s = min(full.retry_after_s for index in waiting if isinstance(full := answers[index], QueueFull))
            if time.monotonic() + pause_s > give_up_at:
                break
            await asyncio.sleep(pause_s)
            await self._once_more(waiting, answers)
            waiting = _refused(waiting, answers)
        return [answers[index] for index in range(len(answers))]

    async def _once_more(self, waiting: Asked, answers: Answers) -> None:
        """Send again what found no room; where there is none for one, those behind it are left for the next time."""
        full: set[Room] = set()
        away: LorapoolError | None = None
        for batch in _batches((index, asked) for index, asked in waiting.items() if not full & _rooms(asked[0])):
            asked = dict(batch)
            away = await self._send(asked, answers, away)
            full |= {_room(job, answers[index]) for index, (job, _) in _refused(asked, answers).items()}

    async def _jobs(
        self, batch: Iterable[tuple[int, Item]], on_lost: str, answers: Answers, away: LorapoolError | None
    ) -> tuple[Asked, LorapoolError | None]:
        """The jobs of these requests, and what is done when they are lost; what is refused is an answer already.

        Also the error of a server that is ``away``, which is then not asked for the next name.
        """
        jobs: Asked = {}
        slices = Slices()
        for index, item in batch:
            try:
                request = Request.of(item)
                jobs[index] = await self._job(request, away), request.on_lost or on_lost
            except LorapoolError as error:
                answers[index] = error
                away = away or (error if isinstance(error, AWAY) else None)
            await slices.between()
        return jobs, away

    async def _job(self, request: Request, away: LorapoolError | None = None) -> Job:
        own_id = _own_id(request.job_id)
        if away is not None:
            raise away.of_job(self._queue.keys.full_id(own_id), Fate.NOT_QUEUED)
        try:
            draft = replace(request, job_id=own_id).job(ref=BASE_REF, agent=self._agent, client=self._client)
            ref = await self._adapters.resolve(request.adapter, draft.id)
        except LorapoolError as error:
            raise error.of_job(self._queue.keys.full_id(own_id), Fate.NOT_QUEUED) from error.__cause__
        return draft if ref == draft.ref else draft.model_copy(update={"ref": ref})

    async def _send(self, asked: Asked, answers: Answers, away: LorapoolError | None) -> LorapoolError | None:
        """Send a batch, unless the server was found to be ``away``; returns the error if it is."""
        if away is not None:
            ids = {index: self._queue.full_id(job.id) for index, (job, _) in asked.items()}
            answers |= {index: away.of_job(job_id, Fate.NOT_QUEUED) for index, job_id in ids.items()}
            return away
        tickets = [self._ticket(job, on_lost) for job, on_lost in asked.values()]
        outcomes = await self._queue.enqueue_many([job for job, _ in asked.values()])
        for (index, (job, _)), ticket, outcome in zip(asked.items(), tickets, outcomes, strict=True):
            answers[index] = self._handle(job, ticket, outcome) if isinstance(outcome, Enqueued) else outcome
        return next((outcome for outcome in outcomes if isinstance(outcome, AWAY)), None)

    def _ticket(self, job: Job, on_lost: str | None) -> Ticket:
        """Taken before the job is sent: its notice may be here before the reply is."""
        deadline_s = None if job.deadline_ms is None else job.deadline_ms / 1000
        ticket = self._inbox.ticket(self._queue.keys.full_id(job.id), own=True, deadline_s=deadline_s)
        if on_lost == "resubmit":
            ticket.copy = ticket.copy or Copy(job)
        return ticket

    def _handle(self, job: Job, ticket: Ticket, enqueued: Enqueued) -> JobHandle:
        ticket.accepted(enqueued.state)
        if not enqueued.created:
            ticket.disown()
        streamed = job.stream if enqueued.created else None
        return JobHandle(self._queue, self._inbox, ticket, streamed=streamed, created=enqueued.created)


def _own_id(job_id: str | None) -> str:
    """A caller's job id as ``Job`` has it: a full one of partition 0, such as an error names, is that job's."""
    if job_id is None:
        return new_job_id()
    partition, bare = split_id(job_id) if isinstance(job_id, str) else (None, job_id)
    return bare if partition == 0 else job_id


def _batches(items: Iterable[T]) -> Iterator[list[T]]:
    source = iter(items)
    while batch := list(islice(source, BATCH)):
        yield batch


def _refused(asked: Asked, answers: Answers) -> Asked:
    """Those that found no room."""
    return {index: each for index, each in asked.items() if isinstance(answers[index], QueueFull)}


def _rooms(job: Job) -> set[Room]:
    """Where there must be room for that job."""
    return {("pool",), ("adapter", job.ref), ("agent", job.ref, job.agent)}


def _room(job: Job, full: JobHandle | LorapoolError) -> Room:
    """Where there was none."""
    scope = full.scope if isinstance(full, QueueFull) else "pool"
    return {"adapter": ("adapter", job.ref), "agent": ("agent", job.ref, job.agent)}.get(scope, ("pool",))
