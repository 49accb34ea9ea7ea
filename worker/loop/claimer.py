"""Claimer: waits until this worker has room and the pool has work, and takes a micro-batch.

Knows when to claim, when to look (tick) and when to sleep; which adapters to prefer is ``affinity.choose``. A claim
whose reply was lost is repeated under its old lease and returns what it took.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from itertools import count

from lorapool.shared.job import BASE_REF
from lorapool.shared.queue.protocol import Claim, ClaimedJob, JobLease, Settlement, View
from lorapool.shared.queue.worker import WorkerQueue
from lorapool.shared.server.redis_retry import retry_until_repaired
from lorapool.shared.tasks import cancel_and_wait
from lorapool.worker.adapters.not_here import MAX_REPORTED, NotHere
from lorapool.worker.engine.port import Residency
from lorapool.worker.loop.affinity import Choice, Holding, Homes, Policy, choose, guess
from lorapool.worker.loop.clock import ServerClock
from lorapool.worker.loop.held_jobs import HeldJobs

TICK_S = 1.0  # a full worker still promotes, reaps and expires so often
BLOCKED_S = 0.25  # work is there, but no slot falls free for it yet
IDLE_S = 1.0  # longest sleep on the wake marker
LEAST_IDLE_S = 0.01
GATHER_S, GATHER_PART = 0.002, 4  # so long, for a quarter of a claim's rows to fall free together
BACKOFF_S = 0.01  # others took what the view had shown; doubles while that goes on


class Claimer:
    """Claims for one worker. ``residency`` tells the adapters that are in device slots or on their way there."""

    def __init__(
        self,
        queue: WorkerQueue,
        jobs: HeldJobs,
        clock: ServerClock,
        policy: Policy,
        residency: Callable[[], Residency],
        not_here: NotHere,
        *,
        worker: str,
        boot_id: str,
        lease_ms: int,
        rows: int,
        slots: int,
    ) -> None:
        self._queue, self._jobs, self._clock, self._policy, self._residency = queue, jobs, clock, policy, residency
        self._not_here = not_here
        self._worker, self._boot_id, self._lease_ms = worker, boot_id, lease_ms
        self._rows, self._slots = rows, slots
        self._nonces = count(1)
        self._backoff_s = BACKOFF_S
        self._view: View | None = None
        self._stopping = asyncio.Event()
        self._woken = asyncio.Event()
        self._blocked = asyncio.Event()
        self._heard = False
        self._homes = Homes([worker])
        jobs.on_change(self.wake)

    def wake(self) -> None:
        """A row or a slot may have fallen free: look again at once."""
        self._woken.set()

    def meet(self, workers: Sequence[str]) -> None:
        """Who else takes jobs, from now on: homes follow from it."""
        if (members := tuple(sorted({*workers, self._worker}))) != self._homes.workers:
            self._homes = Homes(members)

    def stop(self) -> None:
        """Claim no more; what waits, returns."""
        self._stopping.set()
        self.wake()

    async def listen(self) -> None:
        """Beside ``claim``: while that leaves what waits to others, hear of jobs for adapters that are here. Not broken
        off when a row falls free: that would cost a connection each time."""
        while True:
            await self._blocked.wait()
            self._blocked.clear()
            call = retry_until_repaired(
                lambda: self._queue.wait_for_work(self._worker, BLOCKED_S, own=True), "wait for own work"
            )
            if await call:
                self._heard = True
                self.wake()

    async def claim(self) -> tuple[ClaimedJob, ...]:
        """Jobs that are ours now; empty when there was nothing, or on ``stop``."""
        room = await self._gather_room()
        choice = self._choose(room)
        if choice.preferences or self._may_take_suspects():
            return await self._take(choice)
        woken = await self._wait(room)
        if self._stopping.is_set():
            return ()
        if woken and (guess := self._guess(room)).preferences:
            return await self._ask_for(guess)
        await self._tick()
        return ()

    async def _gather_room(self) -> int:
        """Free rows; while few are, and others work, wait a moment: a claim of many costs little more than of one."""
        room, busy = self._rows - self._jobs.unfinished(), self._jobs.unfinished() > 0
        if busy and 0 < room < min(self._rows, self._policy.claim_size) // GATHER_PART:
            await self._pause(GATHER_S)
            room = self._rows - self._jobs.unfinished()
        return room

    def _choose(self, room: int) -> Choice:
        if self._view is None or self._view.apart or self._stopping.is_set():
            return Choice()
        view = self._view
        if self._not_here:
            view = replace(view, waiting=tuple(item for item in view.waiting if item.ref not in self._not_here))
        return choose(view, self._holding(), room, self._policy, self._worker, self._homes)

    def _guess(self, room: int) -> Choice:
        """Nothing waited a moment ago, now something does: most often a job of an adapter that is here. To claim at
        once and learn what else there is takes one round trip, to look first takes two."""
        guessed = guess(self._holding(), room, self._policy)
        return replace(guessed, preferences=self._not_here.without(guessed.preferences))

    def _holding(self) -> Holding:
        residency, held = self._residency(), self._jobs.unfinished_by_adapter()
        loads = not residency.loading | held.keys() <= residency.device | {BASE_REF}
        return Holding(self._slots, residency.device | residency.loading, held, loads)

    def _resident(self) -> tuple[str, ...]:
        """And, with a minus before them, what the server need not show: it cannot be run here."""
        residency = self._residency()
        return (*(residency.device | residency.loading), *(f"-{ref}" for ref in self._not_here.refs(MAX_REPORTED)))

    def _may_take_suspects(self) -> bool:
        """Jobs whose worker vanished run apart: the server gives them to one of few workers, once it holds nothing."""
        empty = not len(self._jobs) and not self._jobs.unfinished()
        return empty and self._view is not None and self._view.suspects > 0 and not self._stopping.is_set()

    async def _take(self, choice: Choice) -> tuple[ClaimedJob, ...]:
        jobs = await self._ask_for(choice)
        if jobs:
            self._backoff_s = BACKOFF_S
        elif not (self._view and self._view.behind):  # what that claim tidied up was all it could do
            await self._pause(self._backoff_s)
            self._backoff_s = min(2 * self._backoff_s, BLOCKED_S)
        return jobs

    async def _ask_for(self, choice: Choice) -> tuple[ClaimedJob, ...]:
        lease = f"{self._boot_id}.{next(self._nonces)}"
        self._woken.clear()
        claim: Claim = await retry_until_repaired(lambda: self._ask(choice, lease), "claim")
        self._see(claim.view)
        if claim.unreadable:
            await self._refuse(claim.unreadable)
        return claim.jobs

    async def _refuse(self, unreadable: Sequence[JobLease]) -> None:
        """Ours now, but nobody can say what they ask for."""
        reason = "what a claim tells of it cannot be read: not written by lorapool, or changed since"
        ends = [Settlement(*held, "failed", error="MalformedEntry", message=reason) for held in unreadable]
        await retry_until_repaired(lambda: self._queue.settle(ends), "settle what cannot be read")

    async def _ask(self, choice: Choice, lease: str) -> Claim:
        return await self._queue.claim(
            self._worker,
            lease,
            choice.preferences,
            max(1, choice.jobs),
            max(1, len(choice.preferences)),
            self._lease_ms,
            residents=self._resident(),
            per_adapter=choice.per_adapter,
            suspects=self._rows,
        )

    async def _tick(self) -> None:
        residents = self._resident()
        self._woken.clear()
        self._see(await retry_until_repaired(lambda: self._queue.tick(self._worker, residents), "tick"))

    def _see(self, view: View) -> None:
        self._view = view
        self._clock.observe(view.now_ms)

    async def _wait(self, room: int) -> bool:
        """Until a row falls free (full), a slot falls free (blocked), or new work is signalled (idle): then True."""
        if self._view is None or self._stopping.is_set():
            return False
        if room > 0 and not self._view.apart and not self._view.ready_count:
            return await self._idle(self._view)
        if room <= 0 or self._view.apart:
            await self._sleep(TICK_S)
            return False
        self._blocked.set()
        await self._sleep(BLOCKED_S)
        heard, self._heard = self._heard, False
        return heard

    async def _idle(self, view: View) -> bool:
        """Sleep on the wake marker, at most until the next delayed job, lease or deadline is due; True if woken."""
        due_s = IDLE_S if view.next_due_ms is None else (view.next_due_ms - self._clock.now_ms()) / 1000
        timeout_s = min(IDLE_S, max(LEAST_IDLE_S, due_s))
        call = retry_until_repaired(lambda: self._queue.wait_for_work(self._worker, timeout_s), "wait for work")
        waiting, stopping = asyncio.ensure_future(call), asyncio.ensure_future(self._stopping.wait())
        done, pending = await asyncio.wait({waiting, stopping}, return_when=asyncio.FIRST_COMPLETED)
        await cancel_and_wait(*pending)
        return waiting in done and waiting.result()

    async def _sleep(self, timeout_s: float) -> None:
        """Not past a wake-up since the last look was asked for: what came while that was under way is not in it."""
        with suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                await self._woken.wait()

    async def _pause(self, timeout_s: float) -> None:
        """Whoever wakes it."""
        with suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                await self._stopping.wait()
