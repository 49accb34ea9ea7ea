"""Striker: carries the plan's faults out, and notes whom and what each of them struck.

It spares a worker that runs a job already lost all but once: one more loss would be the death of that job, and whether
that was bad luck or poison is what the protocol cannot tell. (It looks while the worker is frozen, so that what it sees
holds.) Every other job may be hit as often as it comes.
"""

from __future__ import annotations

import asyncio
import signal
from collections import Counter, defaultdict
from collections.abc import Callable, Coroutine, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import count
from typing import Any

from lorapool.shared.errors import RedisUnreachable
from lorapool.shared.keys import Keys
from lorapool.shared.scripts import Terms
from lorapool.shared.server import Server
from tests.chaos.crew import Berth, Crew
from tests.chaos.plan import Fault, Kind
from tests.chaos.proxy import FaultProxy
from tests.chaos.server import DurableServer
from tests.fleet import until

BUSY = 8  # running jobs that make a fault count as struck under load
DELAY_S = 0.06
ARRIVES_S = 0.06  # until what a worker sent before it was frozen has arrived, a claim above all
LOST_REPLIES = 3
LATE_S = 6.0  # the longest that a late write is held
FULL_TRIES = 10  # looks for a worker that has jobs


@dataclass
class Tally:
    """Of one kind of fault: how many struck, how many under load, and the jobs in its reach, by their state."""

    struck: int = 0
    busy: int = 0
    jobs: Counter[str] = field(default_factory=Counter)


class Striker:
    """``keys`` and ``server`` are a way of its own to the server, apart from all faults but a restart."""

    def __init__(self, crew: Crew, ways: Sequence[FaultProxy], durable: DurableServer, server: Server) -> None:
        self._crew, self._ways, self._durable, self._server = crew, ways, durable, server
        self._keys = Keys("default")
        self._passing: set[asyncio.Task[None]] = set()
        self.tallies: dict[Kind, Tally] = defaultdict(Tally)
        self.spared = 0
        self.late = 0  # writes that arrived while another worker ran the job

    async def strike(self, fault: Fault) -> None:
        """One fault; what lasts passes by itself."""
        strikes: dict[Kind, Callable[[Fault], Coroutine[Any, Any, None]]] = {
            "kill": self._kill,
            "freeze": self._freeze,
            "late write": self._late_write,
            "terminate": self._terminate,
            "restart": self._restart,
            "client kill": self._client_kill,
        }
        await strikes.get(fault.kind, self._upon_peer)(fault)

    async def calm(self) -> None:
        """Until all faults have passed."""
        while self._passing:
            await asyncio.wait(self._passing)

    # -- workers

    async def _kill(self, fault: Fault) -> None:
        berth = await self._frozen(fault)
        await self._note(fault, berth.name)
        berth.worker.signal(signal.SIGKILL)
        await asyncio.to_thread(berth.worker.wait, 20)
        self._crew.replace(berth, same_name=fault.same_name)
        berth.busy = False

    async def _freeze(self, fault: Fault) -> None:
        berth = await self._frozen(fault)
        await self._note(fault, berth.name)

        async def thaw() -> None:
            await asyncio.sleep(fault.seconds)
            berth.worker.signal(signal.SIGCONT)
            berth.busy = False

        self._let_pass(thaw())

    async def _late_write(self, fault: Fault) -> None:
        berth = await self._frozen(fault, least_chances=Terms().max_lost)
        await self._note(fault, berth.name)
        ids = [job["id"] for job in await self._running(berth.name)]
        berth.proxy.hold("settle")
        berth.worker.signal(signal.SIGCONT)

        async def release() -> None:
            with suppress(AssertionError, RedisUnreachable):  # they have ended, or the server is being restarted
                self.late += bool(await until(lambda: self._run_elsewhere(ids, berth.name), LATE_S))
            berth.proxy.release()
            berth.busy = False

        self._let_pass(release())

    async def _run_elsewhere(self, ids: Sequence[str], worker: str) -> bool:
        return any(job["id"] in ids and job["worker"] != worker for job in await self._running())

    async def _terminate(self, fault: Fault) -> None:
        berth = await self._free_berth(fault)
        await self._note(fault, berth.name)
        self._crew.dismiss(berth)

    async def _frozen(self, fault: Fault, least_chances: int = 2) -> Berth:
        """A worker that may be struck, busy and not running; one that has jobs, if there is any within a while.

        None of its jobs has fewer chances left than ``least_chances``.
        """
        for tries in count(1):
            berth = await self._free_berth(fault)
            berth.busy = True
            berth.worker.signal(signal.SIGSTOP)
            await asyncio.sleep(ARRIVES_S)
            chances = [Terms().max_lost - job["lost"] for job in await self._running(berth.name)]
            spares = min(chances, default=least_chances) < least_chances
            if not spares and (chances or tries > FULL_TRIES):
                return berth
            self.spared += spares
            berth.worker.signal(signal.SIGCONT)
            berth.busy = False
            await asyncio.sleep(0.2)
        raise AssertionError

    async def _free_berth(self, fault: Fault) -> Berth:
        while not (free := [berth for berth in self._crew.berths if berth.free]):  # noqa: ASYNC110 - processes
            await asyncio.sleep(0.05)
        return free[int(fault.pick * len(free))]

    # -- the server

    async def _restart(self, fault: Fault) -> None:
        await self._note(fault)
        await until(self._nobody_on_last_chance)
        await self._durable.stop()
        await asyncio.sleep(fault.seconds)
        await self._durable.start()

    async def _client_kill(self, fault: Fault) -> None:
        await self._note(fault)
        await self._server.command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")

    # -- a peer's way to it

    async def _upon_peer(self, fault: Fault) -> None:
        if fault.on_worker and fault.kind == "half-open":
            berth = await self._frozen(fault)
        elif fault.on_worker:
            berth = await self._free_berth(fault)
        else:
            await self._note(fault)
            self._disturb(fault, self._ways[int(fault.pick * len(self._ways))])
            return
        await self._note(fault, berth.name)
        self._disturb(fault, berth.proxy)
        if fault.kind == "half-open":
            berth.worker.signal(signal.SIGCONT)
            berth.busy = False

    def _disturb(self, fault: Fault, way: FaultProxy) -> None:
        if fault.kind == "cut":
            way.cut()
        elif fault.kind == "half-open":
            way.fall_silent()
        elif fault.kind == "lost reply":
            way.lose_replies(LOST_REPLIES)
        else:
            way.delay_s = DELAY_S

            async def quicken() -> None:
                await asyncio.sleep(fault.seconds)
                way.delay_s = 0.0

            self._let_pass(quicken())

    def _let_pass(self, passing: Coroutine[Any, Any, None]) -> None:
        task = asyncio.ensure_future(passing)
        self._passing.add(task)
        task.add_done_callback(self._passing.discard)

    # -- notes

    async def _note(self, fault: Fault, worker: str | None = None) -> None:
        """In a fault's reach: what that worker runs, else every job that has not ended."""
        running = await self._running()
        reached = [job for job in running if worker in {None, job["worker"]}]
        tally = self.tallies[fault.kind]
        tally.struck += 1
        tally.busy += len(running) >= BUSY
        for job in reached:
            tally.jobs["running alone" if job["lost"] else "running, tokens out" if job["out"] else "running"] += 1
        if worker is None:
            tally.jobs.update(await self._waiting())

    async def _running(self, worker: str | None = None) -> list[dict[str, Any]]:
        ids = await self._server.command("ZRANGE", self._keys.one("leases"), 0, -1)
        fields = ("worker", "lost", "emitted")
        found = await self._server.pipeline([("HMGET", self._keys.job(job_id.decode()), *fields) for job_id in ids])
        jobs = [
            {"id": job_id.decode(), "worker": name.decode(), "lost": int(lost), "out": int(emitted or 0) > 0}
            for job_id, (name, lost, emitted) in zip(ids, found, strict=True)
            if name is not None
        ]
        return [job for job in jobs if worker in {None, job["worker"]}]

    async def _nobody_on_last_chance(self) -> bool:
        return all(job["lost"] + 1 < Terms().max_lost for job in await self._running())

    async def _waiting(self) -> dict[str, int]:
        waiting = await self._server.command("HGET", self._keys.one("waiting"), "*")
        suspects, delayed = await self._server.pipeline(
            [("ZCARD", self._keys.one("suspects")), ("ZCARD", self._keys.one("delayed"))]
        )
        return {"queued": int(waiting or 0), "suspect": suspects, "delayed": delayed}
