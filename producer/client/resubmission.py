"""Resubmission: a job that the server lost is enqueued again, by the same id, where its client asked for that.

Once for each loss, however many wait for it, and at most three times. Knows tickets and the queue; whoever waits is
the inbox's matter.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence

from lorapool.producer.client.host_log import warn
from lorapool.producer.client.record import gone
from lorapool.producer.client.ticket import Ticket
from lorapool.shared.errors import Fate, JobExpired, JobLost, LorapoolError, QueueFull, RedisFull, RedisUnreachable
from lorapool.shared.queue.client import ClientQueue
from lorapool.shared.queue.protocol import Enqueued

MAX_LOSSES = 3
RETRY_S = 1.0
PASSING = QueueFull | RedisFull | RedisUnreachable  # it is tried again, as long as somebody waits


class Resubmission:
    """One at a time, so that a loss is seen once."""

    def __init__(self, queue: ClientQueue) -> None:
        self._queue = queue
        self._turn = asyncio.Lock()

    async def of(self, tickets: Sequence[Ticket]) -> list[LorapoolError | None]:
        """For each job without a record: None if it is queued again, or will be tried again when its ticket is due;
        else the error of its loss. Raises RedisUnreachable."""
        async with self._turn:
            states = await self._queue.states([ticket.job_id for ticket in tickets])
            absent = [ticket for ticket, state in zip(tickets, states, strict=True) if state is None]
            jobs = {t.job_id: job for t in absent if _may(t) and t.copy is not None and (job := t.copy.again())}
            outcomes = dict(zip(jobs, await self._queue.enqueue_many(list(jobs.values())), strict=True))
            for ticket in absent:
                _note(ticket, outcomes.get(ticket.job_id))
        missing = {ticket.job_id for ticket in absent}
        return [_lost(t, outcomes.get(t.job_id)) if t.job_id in missing else None for t in tickets]


def _may(ticket: Ticket) -> bool:
    lost = isinstance(gone(ticket.job_id, alive_at=ticket.alive_at), JobLost)
    return lost and ticket.copy is not None and ticket.losses < MAX_LOSSES


def _note(ticket: Ticket, outcome: Enqueued | LorapoolError | None) -> None:
    if isinstance(outcome, Enqueued):
        ticket.accepted(outcome.state)
        ticket.due = float("inf") if ticket.deadline_at is None else ticket.deadline_at
        warn("job_resubmitted", job_id=ticket.job_id, losses=ticket.losses + 1)
    elif isinstance(outcome, PASSING):
        ticket.due = time.monotonic() + getattr(outcome, "retry_after_s", RETRY_S)
    if isinstance(outcome, Enqueued) or (outcome is not None and outcome.fate is Fate.UNKNOWN):
        ticket.losses += 1


def _lost(ticket: Ticket, outcome: Enqueued | LorapoolError | None) -> LorapoolError | None:
    if isinstance(outcome, Enqueued | PASSING):
        return None
    error = gone(ticket.job_id, alive_at=ticket.alive_at)
    if outcome is not None:
        error = JobLost(f"the server lost job {ticket.job_id} and does not take it again: {outcome}")
        error.__cause__ = outcome
    elif not isinstance(error, JobLost) or ticket.copy is None:
        return error
    elif ticket.losses >= MAX_LOSSES:
        error = JobLost(f"the server lost job {ticket.job_id} {ticket.losses + 1} times: it is not submitted again")
    else:
        error = JobExpired(f"job {ticket.job_id} expired: the server lost it, and its deadline passed")
    return error.of_job(ticket.job_id, Fate.NOT_QUEUED)
