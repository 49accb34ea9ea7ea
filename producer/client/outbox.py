"""Outbox: jobs of concurrent ``submit`` calls leave together, so that a thousand agents in one process do not need a
thousand connections.

One call is on its way at a time; what is submitted meanwhile goes with the next. A lone job leaves at once. Knows
neither adapters' names nor handles.
"""

from __future__ import annotations

import asyncio

from lorapool.producer.client.home import Home
from lorapool.shared.errors import ClientClosed, Fate, LorapoolError
from lorapool.shared.job import Job
from lorapool.shared.queue.client import ClientQueue
from lorapool.shared.queue.protocol import Enqueued
from lorapool.shared.tasks import cancel_and_wait

BATCH = 512  # jobs of one call; the queue splits it further by size
Letter = tuple[Job, asyncio.Future[Enqueued]]


class Outbox:
    """In: jobs. Out: for each, Enqueued or the refusal, as ``ClientQueue.enqueue`` has it."""

    def __init__(self, queue: ClientQueue, home: Home) -> None:
        self._queue, self._home = queue, home
        self._waiting: list[Letter] = []
        self._leaving: list[Letter] = []
        self._sender: asyncio.Task[None] | None = None

    async def enqueue(self, job: Job) -> Enqueued:
        """Accepted, or the refusal raised. Cancelling this call does not call back a job that is on its way."""
        try:
            self._home.check()
        except LorapoolError as error:
            raise error.of_job(self._queue.full_id(job.id), Fate.NOT_QUEUED) from None
        future: asyncio.Future[Enqueued] = asyncio.get_running_loop().create_future()
        self._waiting.append((job, future))
        if self._sender is None or self._sender.done():
            self._sender = asyncio.create_task(self._send(), name="lorapool-outbox")
        return await future

    async def close(self) -> None:
        """Send nothing more; who waits gets an error."""
        if self._sender is not None:
            await cancel_and_wait(self._sender)
        self._give_up()  # a sender that never began has told nobody

    async def _send(self) -> None:
        try:
            while self._waiting:
                self._leaving, self._waiting = self._waiting[:BATCH], self._waiting[BATCH:]
                self._leaving = [letter for letter in self._leaving if not letter[1].done()]  # cancelled meanwhile
                outcomes = await self._queue.enqueue_many([job for job, _ in self._leaving])
                for (_, future), outcome in zip(self._leaving, outcomes, strict=True):
                    _tell(future, outcome)
                self._leaving = []
        except asyncio.CancelledError:
            self._give_up()
            raise
        except Exception as error:  # noqa: BLE001 - handed on to every waiter
            self._refuse(error)

    def _give_up(self) -> None:
        self._refuse(ClientClosed("the client was closed while a job was being submitted"))

    def _refuse(self, error: Exception) -> None:
        for letters, fate in ((self._leaving, Fate.UNKNOWN), (self._waiting, Fate.NOT_QUEUED)):
            for job, future in letters:
                own = error.of_job(self._queue.full_id(job.id), fate) if isinstance(error, LorapoolError) else error
                _tell(future, own)
        self._leaving, self._waiting = [], []


def _tell(future: asyncio.Future[Enqueued], outcome: Enqueued | Exception) -> None:
    if future.done():
        return
    if isinstance(outcome, Exception):
        future.set_exception(outcome)
    else:
        future.set_result(outcome)
