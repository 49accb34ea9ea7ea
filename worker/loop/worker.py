"""Worker: claim → admit → step → settle, until told to stop.

Three coroutines carry the jobs (the engine steps elsewhere, behind its port); duties beside them renew leases, beat,
listen and validate. Each Redis call outlives an outage. An engine that ends costs the jobs that it was busy with, no
others; while it is brought up again nothing is claimed. Knows no torch and reads no environment.
"""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Awaitable, Coroutine, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import structlog

from lorapool.shared.queue.protocol import ClaimedJob, JobLease
from lorapool.shared.queue.worker import WorkerQueue
from lorapool.shared.server.redis_retry import retry, retry_until_repaired
from lorapool.shared.tasks import cancel_and_wait
from lorapool.worker.adapters.validator import Validator
from lorapool.worker.engine.port import AsyncEngine, EngineFailed
from lorapool.worker.loop.admission import Admission
from lorapool.worker.loop.claimer import Claimer
from lorapool.worker.loop.control import Control
from lorapool.worker.loop.heartbeat import Heartbeat
from lorapool.worker.loop.held_jobs import HeldJob, HeldJobs
from lorapool.worker.loop.lease_keeper import LeaseKeeper
from lorapool.worker.loop.presence import Presence
from lorapool.worker.loop.settler import Settler

LAST_WORDS_S = 5.0  # for giving back what is left when the grace time is over
log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Parts:
    """What a worker is made of; the composition root builds them."""

    queue: WorkerQueue
    engine: AsyncEngine
    jobs: HeldJobs
    claimer: Claimer
    admission: Admission
    settler: Settler
    keeper: LeaseKeeper
    validator: Validator
    presence: Presence
    heartbeat: Heartbeat
    control: Control


class Worker:
    """One worker over ready-made parts. ``grace_s``: for how long running jobs may go on after ``stop``."""

    def __init__(self, name: str, parts: Parts, *, grace_s: float) -> None:
        self._name, self._parts, self._grace_s = name, parts, grace_s
        self._queue, self._engine, self._jobs = parts.queue, parts.engine, parts.jobs
        self._claimer, self._admission, self._settler = parts.claimer, parts.admission, parts.settler
        self._stopping, self._forced, self._changed = asyncio.Event(), asyncio.Event(), asyncio.Event()
        self._jobs.on_change(self._changed.set)

    # -- the main loop: claim → admit → step → settle

    async def _claim_and_admit(self) -> None:
        """While the jobs of one claim are admitted, the next claim is on its way."""
        claiming = self._claim()
        try:
            while claiming is not None:
                claimed = await claiming
                claiming = self._claim()
                await asyncio.sleep(0)  # it asks the server now
                await self._admission.admit(claimed)
        finally:
            if claiming is not None:
                await cancel_and_wait(claiming)

    def _claim(self) -> asyncio.Task[tuple[ClaimedJob, ...]] | None:
        return None if self._stopping.is_set() else asyncio.create_task(self._claim_and_expect())

    async def _claim_and_expect(self) -> tuple[ClaimedJob, ...]:
        await self._engine_is_up()
        claimed = await self._claimer.claim()
        self._jobs.expect(claimed)
        return claimed

    async def _engine_is_up(self) -> None:
        """Or this worker is told to stop."""
        if self._engine.health().state == "running":
            return
        waits = [asyncio.ensure_future(wait) for wait in (self._engine.up(), self._stopping.wait())]
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            await cancel_and_wait(*(wait for wait in waits if not wait.done()))

    async def _step_and_publish(self) -> None:
        while True:
            report = await self._engine.report()  # the engine steps as long as it has work
            await self._settler.publish(report)  # and settles beside it: a step never waits for the server
            if report.lost is not None:
                await self._settler.give_up(report.lost)

    # -- life

    async def run(self) -> bool:
        """Serve until ``stop``; True if everything was finished or given back, False if that had to be forced.

        Raises what ended a loop, EngineFailed above all, once all that was held is given back.
        """
        self._engine.start()
        try:
            await retry_until_repaired(self._parts.heartbeat.beat, "first heartbeat")
            async with asyncio.TaskGroup() as group:
                claiming = group.create_task(self._claim_and_admit())
                duties = [group.create_task(duty) for duty in self._duties()]
                log.info("ready", worker=self._name)
                await self._stopping.wait()
                self._parts.heartbeat.drain()
                await self._within(LAST_WORDS_S, asyncio.wait([claiming]))  # longer only while Redis is away
                await cancel_and_wait(claiming)
                await self._admission.close()
                await self._drain()
                await self._parts.control.close()
                await cancel_and_wait(*duties)
        except BaseExceptionGroup as errors:
            await self._break_off(errors)
            raise _first(errors) from None
        finally:
            await self._engine.close()
            await self._leave()
        return not self._forced.is_set()

    async def _break_off(self, errors: BaseExceptionGroup[BaseException]) -> None:
        """A loop cannot go on: give back what is held. What the failing call was about counts as lost, so that it does
        not end one worker after the other."""
        log.error("worker cannot go on", held=len(self._jobs), exc_info=errors)
        to_blame = [job.lease for job in self._jobs if job.ended]
        if to_blame and not isinstance(_first(errors), EngineFailed):
            await self._within(LAST_WORDS_S, retry(lambda: self._queue.lose(to_blame), "lose"))
        await self._give_back(self._jobs.expect_no_more())
        await self._release(self._jobs)

    def stop(self) -> None:
        """Drain; asked a second time, give back everything at once."""
        if self._stopping.is_set():
            self._forced.set()
            self._changed.set()
        log.info("stopping", forced=self._forced.is_set(), held=len(self._jobs))
        self._stopping.set()
        self._claimer.stop()

    def stop_on_signals(self) -> None:
        """SIGTERM and SIGINT call ``stop``."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self.stop)

    def _duties(self) -> Iterable[Coroutine[Any, Any, None]]:
        yield self._step_and_publish()
        yield self._settler.settle_ended()
        yield self._claimer.listen()
        yield self._parts.keeper.run()
        yield self._parts.heartbeat.run()
        yield self._parts.control.run()
        yield self._parts.validator.run()

    async def _drain(self) -> None:
        """Give back what has not started, let the rest finish within the grace time, give back what is left."""
        await self._give_back(self._jobs.expect_no_more())
        await self._release(job for job in self._jobs if not job.started)
        await self._within(self._grace_s, self._until_empty())
        await self._release(self._jobs)
        await self._within(LAST_WORDS_S, self._until_empty())

    async def _within(self, seconds: float, wait: Awaitable[object]) -> bool:
        try:
            async with asyncio.timeout(seconds):
                await wait
        except TimeoutError:
            log.warning("time is up", seconds=seconds, held=len(self._jobs))
            return False
        return True

    async def _until_empty(self) -> None:
        while len(self._jobs) and not self._forced.is_set():
            self._changed.clear()
            await self._changed.wait()

    async def _release(self, jobs: Iterable[HeldJob]) -> None:
        """Back to their streams, no attempt burnt."""
        given_back = [job for job in jobs if self._jobs.end(job)]
        for job in given_back:
            self._engine.abort(job.seq_id)
        await self._give_back([job.lease for job in given_back])
        for job in given_back:
            self._jobs.drop(job)

    async def _give_back(self, leases: Sequence[JobLease]) -> None:
        if leases and await self._within(
            LAST_WORDS_S, retry_until_repaired(lambda: self._queue.release(leases), "release")
        ):
            log.info("released", jobs=len(leases))

    async def _leave(self) -> None:
        await self._within(1.0, retry(self._parts.heartbeat.end, "last loads"))
        await self._within(1.0, retry(self._parts.presence.leave, "leave"))
        log.info("stopped", worker=self._name)


def _first(errors: BaseExceptionGroup[BaseException]) -> BaseException:
    """The one that ended the others."""
    first = errors.exceptions[0]
    return _first(first) if isinstance(first, BaseExceptionGroup) else first
