"""JobHandle: one submitted job, seen from the agent: its result, its text as it comes, its state, its end by cancel.

Knows the queue's calls on one job and the inbox that hears of its end. Holds no connection of its own.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import suppress
from functools import partial
from typing import TypeVar

from lorapool.producer.client.host_log import warn
from lorapool.producer.client.inbox import Inbox
from lorapool.producer.client.record import Record, gone, result_of, state_of
from lorapool.producer.client.stream import Splicer, TextDelta
from lorapool.producer.client.ticket import Ticket
from lorapool.shared.backoff import backoff
from lorapool.shared.errors import (
    Fate,
    InvalidRequest,
    JobLost,
    LorapoolError,
    MalformedEntry,
    RedisAuthFailed,
    RedisUnreachable,
    ResultTimeout,
    UnknownJob,
)
from lorapool.shared.job import JobState, Result
from lorapool.shared.queue.client import ClientQueue
from lorapool.shared.queue.protocol import Explanation, StreamItem

STREAM_BLOCK_S, SHAKEN_S = 5.0, 0.05
T = TypeVar("T")


class JobHandle:
    """A job of this pool. Cheap; hold it or get another by ``Client.get(id)``, from any process.

    ``id`` is the full id, ``<partition>.<id>``. ``created`` is False when the same request was there already.
    """

    __slots__ = ("_inbox", "_queue", "_shaken", "_streamed", "created", "id", "ticket")

    def __init__(
        self, queue: ClientQueue, inbox: Inbox, ticket: Ticket, *, streamed: bool | None, created: bool
    ) -> None:
        self._queue, self._inbox, self.ticket = queue, inbox, ticket
        self._streamed = streamed  # None: not known here
        self._shaken = False  # a stream's last call met a server that was away
        self.id, self.created = ticket.job_id, created

    def __repr__(self) -> str:
        return f"<JobHandle {self.id}>"

    def waits_in(self, inbox: Inbox) -> bool:
        """Whether that is the inbox that hears of this job."""
        return self._inbox is inbox

    async def result(self, timeout: float | None = None) -> Result:
        """Wait for the end; ``timeout`` seconds, None for ever.

        Raises JobFailed, JobCancelled, JobExpired; ResultTimeout when the timeout passed first (the job goes on);
        JobLost, ResultExpired or UnknownJob when there is no record. A short loss of the server is waited out.
        """
        return _read(self.id, await self._inbox.wait(self.ticket, timeout), timeout)

    async def record(self) -> Record:
        """All fields stored of the job now, finished or not."""
        record = await self._queue.get(self.id)
        if record is None:
            raise gone(self.id, alive_at=self.ticket.alive_at)
        return record

    async def state(self) -> JobState:
        """Where the job is now."""
        known = self.ticket.record
        return await self._ask_state() if known is None else state_of(known)

    async def cancel(self) -> JobState:
        """Ask for its end and return the state now: ``cancelled``, or ``running`` until the worker has let go, or
        the terminal state it already had."""
        return await self._queue.cancel(self.id)

    async def explain(self) -> Explanation:
        """Why the job is where it is: a word, a sentence, and the facts behind them."""
        return await self._queue.explain(self.id)

    async def stream(self, timeout: float | None = None) -> AsyncGenerator[TextDelta, None]:
        """The text as it comes, from its beginning, each piece once; ends when the job succeeded.

        Raises InvalidRequest for a job submitted without ``stream=True``, ResultTimeout when ``timeout`` seconds passed
        in all, and as ``result()`` for a job that failed, was cancelled or expired.
        """
        give_up_at = None if timeout is None else time.monotonic() + timeout
        await self._outlast(self._check_streamed, give_up_at)
        splicer, last_id, state, losses = Splicer(), "0-0", JobState.QUEUED, self.ticket.losses
        while not state.terminal:
            items = await self._outlast(partial(self._tokens, last_id, give_up_at), give_up_at)
            if self.ticket.losses != losses:  # submitted again: its stream is another
                losses, last_id = self.ticket.losses, "0-0"
                splicer.anew()
                continue
            for item in items:
                last_id = item.entry_id
                delta = splicer.take(item)
                if delta is not None:
                    yield delta
            state = (items[-1].state or state) if items else await self._outlast(self._see_state, give_up_at)
        rest = splicer.rest(await self.result(_remaining(give_up_at)))
        if rest is not None:
            yield rest

    async def _tokens(self, last_id: str, give_up_at: float | None) -> list[StreamItem]:
        """The next items, or none after a while."""
        return await self._queue.tokens(self.id, last_id, self._block_s(give_up_at))

    async def _outlast(self, ask: Callable[[], Awaitable[T]], give_up_at: float | None) -> T:
        """The answer; a server that is away is waited for until the time is up."""
        pauses = backoff()
        while True:
            try:
                return await ask()
            except RedisAuthFailed:
                raise
            except RedisUnreachable as error:
                pause_s = next(pauses)
                warn("stream_unreachable", error=str(error), retry_s=pause_s)
                await asyncio.sleep(pause_s)
                self._block_s(give_up_at)
                self._shaken = True

    def _block_s(self, give_up_at: float | None) -> float:
        """How long to wait for the next item; raises ResultTimeout when the time is up."""
        remaining = _remaining(give_up_at)
        if remaining == 0:
            over = ResultTimeout(f"job {self.id} has not ended in time; it goes on, and stream() begins it again")
            raise over.of_job(self.id, Fate.QUEUED)
        if self._shaken:  # what was there before may be lost: look soon
            self._shaken = False
            return SHAKEN_S
        late = self.ticket.deadline_at
        until_late = STREAM_BLOCK_S if late is None else max(0.05, late - time.monotonic())
        return min(STREAM_BLOCK_S, until_late, STREAM_BLOCK_S if remaining is None else remaining)

    async def _check_streamed(self) -> None:
        if self._streamed is None:
            self._streamed = (await self.record()).get("stream") == "1"
        if not self._streamed:
            raise InvalidRequest(f"job {self.id} was submitted without stream=True: use result(), or submit it again")

    async def _see_state(self) -> JobState:
        """The state; a job that was lost is submitted again if it may be."""
        try:
            return await self._ask_state()
        except JobLost:
            if self.ticket.copy is None:
                raise
            await self._inbox.revive(self.ticket)
            return JobState.QUEUED

    async def _ask_state(self) -> JobState:
        late = self.ticket.deadline_at
        if late is not None and late <= time.monotonic():
            with suppress(UnknownJob):  # seen below
                return await self._queue.expire(self.id)
        [state] = await self._queue.states([self.id])
        if state is None:
            raise gone(self.id, alive_at=self.ticket.alive_at)
        if isinstance(state, MalformedEntry):
            raise state
        if not state.terminal:
            self.ticket.accepted(state)
        return state


def _remaining(give_up_at: float | None) -> float | None:
    return None if give_up_at is None else max(0.0, give_up_at - time.monotonic())


def outcome_of(
    handle: JobHandle, record: Record | LorapoolError | None, timeout: float | None
) -> Result | LorapoolError:
    """``result`` of what ``Inbox.wait_all`` brought for a handle; what it would raise, returned."""
    if isinstance(record, LorapoolError):
        return record
    try:
        return _read(handle.id, record, timeout)
    except LorapoolError as error:
        return error


def _read(job_id: str, record: Record | None, timeout: float | None) -> Result:
    if record is None:
        late = ResultTimeout(f"job {job_id} has not ended after {timeout:g} s; it goes on, ask again later")
        raise late.of_job(job_id, Fate.QUEUED)
    return result_of(job_id, record)
