"""Inbox: how one client hears of its jobs' ends, at a cost that does not grow with the number of jobs awaited.

One reader blocks on the client's inbox stream; one sweeper does what has no notice: it polls jobs that another client
submitted, expires own overdue ones, and audits. A notice that brings a short answer is believed, written as it was in
one step with the record; any other is a hint, and the record is fetched. A gap or a reconnect makes every open job be
looked up again, and a few are looked up every ten seconds anyway. Both tasks run only while somebody waits. Knows
nothing of results: it hands out terminal records.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Coroutine, Iterable, Sequence
from weakref import WeakValueDictionary

from lorapool.producer.client.home import Home
from lorapool.producer.client.host_log import warn
from lorapool.producer.client.record import Record, gone, state_of
from lorapool.producer.client.resubmission import Resubmission
from lorapool.producer.client.slices import Slices
from lorapool.producer.client.ticket import Ticket
from lorapool.shared.backoff import backoff
from lorapool.shared.errors import (
    ClientClosed,
    JobLost,
    LorapoolError,
    MalformedEntry,
    RedisAuthFailed,
    RedisUnreachable,
    UnknownJob,
)
from lorapool.shared.job import JobState
from lorapool.shared.queue.client import ClientQueue
from lorapool.shared.tasks import cancel_and_wait

BLOCK_S = 7.0
AUDIT_S = 10.0
AUDIT_SAMPLE = 2  # jobs looked up a round: 0.2 commands a second
AUDIT_ROUNDS = 100  # in which all are looked up, if they are many
POLL_LAST_S = 0.5
UNHEARD_S = 5.0  # a job not heard of for so long is looked up when somebody begins to wait
CHUNK = 500
BELIEVED_S = 3600.0  # a notice: while the record must still be there, and its id cannot be another job's
DEADLINE_GRACE_S = 0.25  # lets a worker settle or a tick expire first


class Inbox:
    """Tickets in, terminal records out. ``client`` names the inbox stream; it must be this process's alone."""

    def __init__(self, queue: ClientQueue, client: str, home: Home) -> None:
        self._queue, self._client, self._home = queue, client, home
        self._known: WeakValueDictionary[str, Ticket] = WeakValueDictionary()
        self._open: dict[str, Ticket] = {}
        self._last_id, self._read, self._written = "0-0", 0, 0
        self._heard_at = time.monotonic()
        self._next_audit = 0.0
        self._doubted_at = 0.0
        self._stir = asyncio.Event()
        self._resubmission = Resubmission(queue)
        self._reader: asyncio.Task[None] | None = None
        self._sweeper: asyncio.Task[None] | None = None

    def ticket(self, job_id: str, *, own: bool, deadline_s: float | None = None) -> Ticket:
        """The one ticket of that job in this process."""
        known = self._known.get(job_id)
        if known is not None:
            known.fresh = False
            return known
        deadline_at = None if deadline_s is None else time.monotonic() + deadline_s + DEADLINE_GRACE_S
        ticket = Ticket(job_id, own=own, deadline_at=deadline_at)
        self._known[job_id] = ticket
        return ticket

    async def wait(self, ticket: Ticket, timeout_s: float | None) -> Record | None:
        """The terminal record, or None when ``timeout_s`` passed first. Raises UnknownJob or ResultExpired."""
        future = self._enter(ticket)
        try:
            await asyncio.wait((future,), timeout=timeout_s)
        finally:
            self._leave(ticket)
        return future.result() if future.done() else None

    async def wait_all(self, tickets: Sequence[Ticket], timeout_s: float | None) -> list[Record | LorapoolError | None]:
        """As ``wait`` for each, at the cost of one: the record, the error, or None when ``timeout_s`` passed first."""
        give_up_at = None if timeout_s is None else time.monotonic() + timeout_s
        slices, futures = Slices(), []
        try:
            for ticket in tickets:
                futures.append(self._enter(ticket))
                await slices.between()
            for future in futures:
                if not future.done():
                    left_s = None if give_up_at is None else max(0.0, give_up_at - time.monotonic())
                    await asyncio.wait((future,), timeout=left_s)
                await slices.between()
        finally:
            for ticket in tickets[: len(futures)]:
                self._leave(ticket)
        return [_told(future) for future in futures]

    async def close(self) -> None:
        """End both tasks; who still waits gets an error, and the job goes on."""
        await cancel_and_wait(*(task for task in (self._reader, self._sweeper) if task is not None))
        self._fail(ClientClosed("the client was closed while a job was awaited"))

    def check_integrity(self) -> None:
        """Every open ticket is waited for and unanswered; nobody waits without a reader and a sweeper."""
        for job_id, ticket in self._open.items():
            assert ticket.job_id == job_id
            assert ticket.waiters > 0, job_id
            assert ticket.future is not None, job_id
            assert not ticket.future.done(), job_id
        assert not self._open or (_running(self._reader) and _running(self._sweeper))

    # -- who waits

    def _enter(self, ticket: Ticket) -> asyncio.Future[Record]:
        try:
            self._home.check()
        except LorapoolError as error:
            raise error.of_job(ticket.job_id, ticket.fate) from None
        ticket.waiters += 1
        if ticket.future is None or (ticket.future.done() and ticket.record is None):
            ticket.future = asyncio.get_running_loop().create_future()
        if not ticket.future.done():
            self._open[ticket.job_id] = ticket
            self._wake(ticket)
        return ticket.future

    def _leave(self, ticket: Ticket) -> None:
        ticket.waiters -= 1
        if not ticket.waiters:
            self._open.pop(ticket.job_id, None)
        if not self._open:
            self._stir.set()  # lets the sweeper end

    def _wake(self, ticket: Ticket) -> None:
        if ticket.own and ticket.deadline_at is not None:
            ticket.due = min(ticket.due, ticket.deadline_at)
        if ticket.alive_at and ticket.alive_at < max(self._doubted_at, time.time() - UNHEARD_S):
            ticket.due = 0.0
        if not _running(self._sweeper):
            self._next_audit = time.monotonic() + AUDIT_S
            self._sweeper = asyncio.create_task(self._guard(self._sweep()), name="lorapool-sweeper")
        if not _running(self._reader):
            self._reader = asyncio.create_task(self._guard(self._listen()), name="lorapool-inbox")
        if ticket.due <= self._next_audit:
            self._stir.set()

    async def _guard(self, duty: Coroutine[None, None, None]) -> None:
        """Whatever ends a duty early reaches those who wait; nobody waits on a dead task."""
        try:
            await duty
        except Exception as error:  # noqa: BLE001 - handed on to every waiter
            self._fail(error)

    def _fail(self, error: Exception) -> None:
        """End all waiting; an error that is no word of ours becomes the cause of one, so that gather keeps the rest."""
        own_error = error
        if not isinstance(own_error, LorapoolError):
            own_error = LorapoolError(f"waiting for it ended in {type(error).__name__}: {error}")
            own_error.__cause__ = error
        for ticket in tuple(self._open.values()):
            self._refuse(ticket, own_error)

    def _refuse(self, ticket: Ticket, error: LorapoolError) -> None:
        self._open.pop(ticket.job_id, None)
        if ticket.future is not None and not ticket.future.done():
            ticket.future.set_exception(error.of_job(ticket.job_id, error.fate or ticket.fate))  # one of its own

    # -- the reader: one blocking read for all

    async def _listen(self) -> None:
        pauses = backoff()
        while self._open:
            try:
                await self._hear()
                pauses = backoff()
            except RedisAuthFailed as error:
                self._fail(error)
            except (RedisUnreachable, MalformedEntry) as error:  # an inbox that is none is made anew by the next notice
                await _wait_out("inbox_unreachable", error, next(pauses))
                self._doubt()

    async def _hear(self) -> None:
        notices = await self._queue.inbox(self._client, self._last_id, BLOCK_S)
        unheard_s, self._heard_at = time.monotonic() - self._heard_at, time.monotonic()
        if not notices:
            return
        self._last_id = notices[-1].entry_id
        self._read += len({notice.entry_id for notice in notices})
        hinted = []
        for notice in notices:
            ticket = self._known.get(notice.job_id)
            if ticket is None:
                continue
            ticket.due = 0.0  # one that nobody awaits yet is looked up when somebody does
            if notice.record is not None and unheard_s < BELIEVED_S:
                self._answer(ticket, notice.record)
            elif ticket.job_id in self._open:
                hinted.append(ticket)
        await self._fetch(hinted)

    def _doubt(self) -> None:
        """Notices may have been missed: look every open job up."""
        self._doubted_at = time.time()
        for ticket in self._open.values():
            ticket.due = 0.0
        self._stir.set()

    async def _fetch(self, tickets: list[Ticket]) -> None:
        """Answer those that have ended; one call for 64."""
        missing = []
        for chunk in _chunks(tickets):
            records = await self._queue.results([ticket.job_id for ticket in chunk])
            for ticket, record in zip(chunk, records, strict=True):
                if record is None:
                    missing.append(ticket)
                else:
                    self._answer(ticket, record)
        await self._lose(missing)

    async def _lose(self, tickets: list[Ticket]) -> None:
        """There is no record of them: submitted again where that was asked for, else an error for who waits."""
        errors = [gone(ticket.job_id, alive_at=ticket.alive_at) for ticket in tickets]
        lost = any(isinstance(error, JobLost) for error in errors)
        if lost and time.time() - self._doubted_at > UNHEARD_S:
            self._doubt()  # one is seldom lost alone
        kept = [ticket for ticket in tickets if ticket.copy is not None]
        again = dict(zip(kept, await self._resubmission.of(kept) if kept else (), strict=True))
        for ticket, error in zip(tickets, errors, strict=True):
            own_error = again.get(ticket, error)
            if own_error is not None:
                self._refuse(ticket, own_error)

    async def revive(self, ticket: Ticket) -> None:
        """Submit a job again that was found to be lost. Raises the error of its loss, RedisUnreachable."""
        [error] = await self._resubmission.of([ticket])
        if error is not None:
            raise error

    def _answer(self, ticket: Ticket, record: Record) -> None:
        try:
            ended = state_of(record).terminal
        except LorapoolError as error:
            self._refuse(ticket, error)
            return
        if ended:
            self._open.pop(ticket.job_id, None)
            if ticket.future is not None and not ticket.future.done():
                ticket.future.set_result(record)

    # -- the sweeper: what no notice tells

    async def _sweep(self) -> None:
        pauses = backoff()
        while self._open:
            try:
                await self._round()
                pauses = backoff()
            except RedisAuthFailed as error:
                self._fail(error)
            except (RedisUnreachable, MalformedEntry) as error:
                await _wait_out("sweep_unreachable", error, next(pauses))

    async def _round(self) -> None:
        now = time.monotonic()
        if now >= self._next_audit:
            await self._audit()
            self._next_audit = now + AUDIT_S
        due = [ticket for ticket in self._open.values() if ticket.due <= now]
        if due:
            await self._look_up(due, now)
        await self._rest()

    async def _rest(self) -> None:
        wake_at = min((ticket.due for ticket in self._open.values()), default=0.0)
        timeout_s = min(wake_at, self._next_audit) - time.monotonic()
        if self._open and timeout_s > 0:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._stir.wait(), timeout_s)
        self._stir.clear()

    async def _look_up(self, tickets: list[Ticket], now: float) -> None:
        for ticket in tickets:
            if ticket.deadline_at is not None and ticket.deadline_at <= now:
                ticket.deadline_at = now + 1.0
                with contextlib.suppress(UnknownJob, MalformedEntry):  # seen below
                    await self._queue.expire(ticket.job_id)
        for chunk in _chunks(tickets):
            for ticket in chunk:
                _schedule(ticket, now)  # before it is asked for: a doubt that comes meanwhile has it asked for again
            try:
                await self._look_at(chunk)
            except LorapoolError:
                for ticket in chunk:
                    ticket.due = 0.0
                raise

    async def _look_at(self, tickets: Sequence[Ticket]) -> None:
        ended = []
        states = await self._queue.states([ticket.job_id for ticket in tickets])
        for ticket, state in zip(tickets, states, strict=True):
            if isinstance(state, JobState) and not state.terminal:
                ticket.accepted(state)
            else:  # it ended, or it is lost or damaged: whoever awaits it gets the error
                ended.append(ticket)
        await self._fetch(ended)

    async def _audit(self) -> None:
        """Were notices lost? The stream counts all that were ever written to it; and trust a few jobs to no notice."""
        written = await self._queue.inbox_written(self._client)
        if written < self._written:  # the inbox was lost and begun anew
            self._last_id, self._read = "0-0", 0
            self._doubt()
        elif self._read < self._written:  # what was there a round ago has not come: it was trimmed away
            warn("inbox_gap", read=self._read, written=self._written)
            self._read = self._written
            self._doubt()
        self._written = written
        sample = max(AUDIT_SAMPLE, len(self._open) // AUDIT_ROUNDS)
        for ticket in sorted(self._open.values(), key=lambda ticket: ticket.checked_at)[:sample]:
            ticket.due = 0.0


async def _wait_out(event: str, error: Exception, pause_s: float) -> None:
    warn(event, error=str(error), retry_s=pause_s)
    await asyncio.sleep(pause_s)


def _told(future: asyncio.Future[Record]) -> Record | LorapoolError | None:
    if not future.done():
        return None
    error = future.exception()
    return error if isinstance(error, LorapoolError) else future.result()


def _schedule(ticket: Ticket, now: float) -> None:
    ticket.checked_at = now
    ticket.due = float("inf") if ticket.deadline_at is None else ticket.deadline_at
    if not ticket.own:
        ticket.due = min(ticket.due, now + ticket.poll_s)
        ticket.poll_s = min(ticket.poll_s * 1.5, POLL_LAST_S)


def _chunks(tickets: list[Ticket]) -> Iterable[list[Ticket]]:
    return (tickets[start : start + CHUNK] for start in range(0, len(tickets), CHUNK))


def _running(task: asyncio.Task[None] | None) -> bool:
    return task is not None and not task.done()
