"""Sender: what a caller asks for becomes jobs, jobs are sent, and their handles or errors come back.

Knows names, partitions, the outbox and the inbox's tickets. Long lists are worked through in slices, between which the
caller's event loop goes on. Waits for no job's end.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from lorapool.producer.adapters import Adapters
from lorapool.producer.handle import JobHandle
from lorapool.producer.inbox import Inbox
from lorapool.producer.outbox import Outbox
from lorapool.producer.patience import Slices
from lorapool.producer.request import Request, check_on_lost
from lorapool.producer.ticket import Copy, Ticket
from lorapool.shared.broker import Broker
from lorapool.shared.errors import Fate, LorapoolError, QueueFull
from lorapool.shared.job import BASE_REF, Job
from lorapool.shared.keys import new_job_id, split_id
from lorapool.shared.protocol import Enqueued

Item = Request | Mapping[str, Any] | Sequence[Any]


class Sender:
    """``agent`` and ``client`` are the names that jobs are counted under and whose inbox hears of their ends."""

    def __init__(
        self, broker: Broker, adapters: Adapters, inbox: Inbox, outbox: Outbox, agent: str, client: str
    ) -> None:
        self._broker, self._adapters = broker, adapters
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
        """Those refused for want of room are tried again until ``give_up_at`` (monotonic seconds)."""
        check_on_lost(on_lost)
        done, jobs = await self._jobs(requests, on_lost)
        while jobs:
            done |= zip(jobs, await self._send(list(jobs.values())), strict=True)
            full = {index: error for index in jobs if isinstance(error := done[index], QueueFull)}
            pause_s = min((error.retry_after_s for error in full.values()), default=0.0)
            if time.monotonic() + pause_s > give_up_at:
                break
            await asyncio.sleep(pause_s)
            jobs = {index: jobs[index] for index in full}
        return [done[index] for index in range(len(done))]

    async def _jobs(
        self, requests: Iterable[Item], on_lost: str
    ) -> tuple[dict[int, JobHandle | LorapoolError], dict[int, tuple[Job, str]]]:
        """By place: what is refused before it is sent, and the jobs, with what is done when they are lost."""
        refused: dict[int, JobHandle | LorapoolError] = {}
        jobs: dict[int, tuple[Job, str]] = {}
        slices = Slices()
        for index, item in enumerate(requests):
            try:
                request = Request.of(item)
                jobs[index] = await self._job(request), request.on_lost or on_lost
            except LorapoolError as error:
                refused[index] = error
            await slices.between()
        return refused, jobs

    async def _job(self, request: Request) -> Job:
        own_id = _own_id(request.job_id)
        try:
            draft = replace(request, job_id=own_id).job(ref=BASE_REF, agent=self._agent, client=self._client)
            ref = await self._adapters.resolve(request.adapter)
        except LorapoolError as error:
            raise error.of_job(self._broker.keys.full_id(own_id), Fate.NOT_QUEUED) from error.__cause__
        return draft if ref == draft.ref else draft.model_copy(update={"ref": ref})

    async def _send(self, asked: list[tuple[Job, str]]) -> list[JobHandle | LorapoolError]:
        slices = Slices()
        tickets = []
        for job, on_lost in asked:
            tickets.append(self._ticket(job, on_lost))
            await slices.between()
        outcomes = await self._broker.enqueue_many([job for job, _ in asked])
        answers: list[JobHandle | LorapoolError] = []
        for (job, _), ticket, outcome in zip(asked, tickets, outcomes, strict=True):
            answers.append(self._handle(job, ticket, outcome) if isinstance(outcome, Enqueued) else outcome)
            await slices.between()
        return answers

    def _ticket(self, job: Job, on_lost: str | None) -> Ticket:
        """Taken before the job is sent: its notice may be here before the reply is."""
        deadline_s = None if job.deadline_ms is None else job.deadline_ms / 1000
        ticket = self._inbox.ticket(self._broker.keys.full_id(job.id), own=True, deadline_s=deadline_s)
        if on_lost == "resubmit":
            ticket.copy = ticket.copy or Copy(job)
        return ticket

    def _handle(self, job: Job, ticket: Ticket, enqueued: Enqueued) -> JobHandle:
        ticket.accepted(enqueued.state)
        if not enqueued.created:
            ticket.disown()
        streamed = job.stream if enqueued.created else None
        return JobHandle(self._broker, self._inbox, ticket, streamed=streamed, created=enqueued.created)


def _own_id(job_id: str | None) -> str:
    """A caller's job id as ``Job`` has it: a full one of partition 0, such as an error names, is that job's."""
    if job_id is None:
        return new_job_id()
    partition, bare = split_id(job_id) if isinstance(job_id, str) else (None, job_id)
    return bare if partition == 0 else job_id
