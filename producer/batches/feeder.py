"""Feeder: takes batches that nobody feeds and runs them, as many as one process may hold; the duty of each gateway.

It coordinates with others by leases alone: what one leaves, by death or by ending, another takes. Also removes files
whose time is over. Nothing that befalls one batch ends the feeder.
"""

from __future__ import annotations

import asyncio
import os
import secrets
import time

import structlog

from lorapool.producer.batches.answer import Door
from lorapool.producer.batches.batch_run import BatchRun, Pace
from lorapool.producer.batches.files import Files
from lorapool.producer.batches.lease import Held, LeaseLost
from lorapool.producer.client.client import Client
from lorapool.shared.backoff import backoff
from lorapool.shared.batches.batch_book import BatchBook, Lease
from lorapool.shared.errors import FilesUnavailable, LorapoolError
from lorapool.shared.tasks import cancel_and_wait

SWEEP_S = 60.0
LONG_WORK = 2  # batches whose files are looked through, or joined, at a time
TROUBLED_S = 10.0  # before a batch that met trouble is taken again
log = structlog.get_logger("lorapool")


class Feeder:
    """``name`` is shown with what it holds."""

    def __init__(self, client: Client, files: Files, door: Door, *, pace: Pace, name: str = "") -> None:
        self._client, self._files, self._door, self._pace = client, files, door, pace
        self._book: BatchBook = client.batches
        self._name = name or f"gateway-{secrets.token_hex(4)}-{os.getpid()}"
        self._running: dict[asyncio.Task[None], Lease] = {}
        self._stir, self._long_work = asyncio.Event(), asyncio.Semaphore(LONG_WORK)
        self._swept_at = 0.0

    def stir(self) -> None:
        """There may be something to take: look now."""
        self._stir.set()

    async def run(self) -> None:
        """Until cancelled; what it holds is then given back at once."""
        pauses = backoff()
        try:
            while True:
                try:
                    await self._round()
                    pauses = backoff()
                except LorapoolError as error:
                    log.warning("feeder_waits", error=str(error))
                    await asyncio.sleep(next(pauses))
                except Exception:
                    log.exception("feeder_failed")
                    await asyncio.sleep(next(pauses))
        finally:
            await self._give_back()

    async def _round(self) -> None:
        if time.monotonic() - self._swept_at > SWEEP_S:
            self._swept_at = time.monotonic()
            await self._files.sweep()
        idle = len(self._running) < self._pace.batches
        lease = await self._book.take(self._name, round(self._pace.lease_s * 1000), idle=idle)
        if lease is None:
            await self._rest()
            return
        task = asyncio.create_task(self._feed(lease), name=f"lorapool-batch-{lease.batch_id}")
        self._running[task] = lease
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._running.pop(task, None)
        self._stir.set()

    async def _rest(self) -> None:
        try:
            async with asyncio.timeout(self._pace.poll_s):
                await self._stir.wait()
        except TimeoutError:
            return
        self._stir.clear()

    async def _feed(self, lease: Lease) -> None:
        """Whatever ends the run, the batch is left so that another can go on."""
        tasks: list[asyncio.Task[None]] = []
        try:
            held = Held(self._book, lease, await self._book.get(lease.batch_id), self._pace.lease_s)
            log.info("batch_taken", batch=lease.batch_id, status=held.batch.status)
            run = BatchRun(self._client, self._files.store, self._door, held, self._pace, self._long_work)
            tasks = [asyncio.create_task(duty) for duty in (run.run(), held.keep())]
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
            log.info("batch_ended", batch=lease.batch_id)
        except Exception as error:  # noqa: BLE001 - one batch must not end the others
            await self._let_go(lease, error)
        finally:
            await cancel_and_wait(*tasks)

    async def _let_go(self, lease: Lease, error: Exception) -> None:
        cause = _first(error)
        if isinstance(cause, LeaseLost):
            log.warning("batch_lease_lost", batch=lease.batch_id)
            return
        known = isinstance(cause, LorapoolError | FilesUnavailable)
        log.warning("batch_troubled", batch=lease.batch_id, error=str(cause), exc_info=None if known else cause)
        trouble = str(cause) if known else f"the feeder failed: {type(cause).__name__}"
        await self._release(lease, pause_ms=round(TROUBLED_S * 1000), trouble=trouble)

    async def _give_back(self) -> None:
        leases = dict(self._running)
        await cancel_and_wait(*leases)
        for lease in leases.values():
            await self._release(lease)

    async def _release(self, lease: Lease, *, pause_ms: int = 0, trouble: str = "") -> None:
        try:
            await self._book.release(lease, pause_ms=pause_ms, trouble=trouble)
        except LorapoolError as error:  # it runs out
            log.warning("batch_not_released", batch=lease.batch_id, error=str(error))


def _first(error: BaseException) -> BaseException:
    """What a group of tasks ended with."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error
