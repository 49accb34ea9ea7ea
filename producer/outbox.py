"""Outbox: jobs of concurrent ``submit`` calls leave together, so that a thousand agents in one process do not need a
thousand connections.

One call is on its way at a time; what is submitted meanwhile goes with the next. A lone job leaves at once. Knows
neither adapters' names nor handles.
"""

from __future__ import annotations

import asyncio

from lorapool.producer.patience import end
from lorapool.shared.broker import Broker
from lorapool.shared.errors import LorapoolError
from lorapool.shared.job import Job
from lorapool.shared.protocol import Enqueued

BATCH = 512  # jobs of one call; the broker splits it further by size


class Outbox:
    """In: jobs. Out: for each, Enqueued or the refusal, as ``Broker.enqueue`` has it."""

    def __init__(self, broker: Broker) -> None:
        self._broker = broker
        self._waiting: list[tuple[Job, asyncio.Future[Enqueued]]] = []
        self._sender: asyncio.Task[None] | None = None

    async def enqueue(self, job: Job) -> Enqueued:
        """Accepted, or the refusal raised. Cancelling this call does not call the job back."""
        future: asyncio.Future[Enqueued] = asyncio.get_running_loop().create_future()
        self._waiting.append((job, future))
        if self._sender is None or self._sender.done():
            self._sender = asyncio.create_task(self._send(), name="lorapool-outbox")
        return await future

    async def close(self) -> None:
        """Send nothing more; who waits gets an error."""
        if self._sender is not None:
            await end(self._sender)

    async def _send(self) -> None:
        batch: list[tuple[Job, asyncio.Future[Enqueued]]] = []
        try:
            while self._waiting:
                batch, self._waiting = self._waiting[:BATCH], self._waiting[BATCH:]
                outcomes = await self._broker.enqueue_many([job for job, _ in batch])
                for (_, future), outcome in zip(batch, outcomes, strict=True):
                    _tell(future, outcome)
        except asyncio.CancelledError:
            self._refuse(batch, LorapoolError("the client was closed while a job was on its way"))
            raise
        except Exception as error:  # noqa: BLE001 - handed on to every waiter
            self._refuse(batch, error)

    def _refuse(self, batch: list[tuple[Job, asyncio.Future[Enqueued]]], error: Exception) -> None:
        for _, future in (*batch, *self._waiting):
            _tell(future, error)
        self._waiting = []


def _tell(future: asyncio.Future[Enqueued], outcome: Enqueued | Exception) -> None:
    if future.done():
        return
    if isinstance(outcome, Exception):
        future.set_exception(outcome)
    else:
        future.set_result(outcome)
