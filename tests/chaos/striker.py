"""Striker: carries the plan's faults out, each upon whom it takes aim at."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable, Coroutine, Sequence
from contextlib import suppress
from random import Random
from typing import Any

from redis.asyncio import Redis

from lorapool.shared.errors import RedisUnreachable
from lorapool.shared.server.server import Server
from lorapool.shared.server.terms import Terms
from tests.chaos import clock, refusals
from tests.chaos.aim import Aim
from tests.chaos.crew import Crew
from tests.chaos.engine_striker import EngineStriker
from tests.chaos.plan import ON_PEERS, Fault, Kind
from tests.chaos.proxy import FaultProxy
from tests.chaos.scribbles import scribbles, wiped
from tests.chaos.server import DurableServer
from tests.chaos.strangers import Strangers
from tests.chaos.toll import Toll
from tests.fleet import until

DELAY_S = 0.06
LOST_REPLIES = 3
LATE_S = 10.0  # the longest that a late write is held


class Striker:
    """``redis`` is a way of its own to the server, ``inboxes`` the names of the agents' clients, ``refs`` their
    adapters."""

    def __init__(
        self,
        crew: Crew,
        ways: Sequence[FaultProxy],
        durable: DurableServer,
        redis: Redis,
        strangers: Strangers,
        *,
        inboxes: Sequence[str],
        refs: Sequence[str],
    ) -> None:
        self._crew, self._ways, self._durable = crew, ways, durable
        self._redis, self._server = redis, Server(redis)
        self._strangers, self._inboxes = strangers, inboxes
        self._passing: set[asyncio.Task[None]] = set()
        self._passed: list[BaseException] = []
        self.toll = Toll(self._server)
        self.aim = Aim(crew, self.toll)
        self.late = 0  # writes that arrived while another worker ran the job
        engines = EngineStriker(crew, self.aim, self.toll, refs, self._let_pass)
        self._strikes: dict[Kind, Callable[[Fault], Coroutine[Any, Any, None]]] = {
            "kill": self._kill,
            "freeze": self._freeze,
            "late write": self._late_write,
            "terminate": self._terminate,
            "kill engine": engines.kill_engine,
            "hang engine": engines.hang_engine,
            "sick device": engines.sicken,
            "full device": engines.fill,
            "no mount": engines.unmount,
            "hostile": self._register,
            "restart": self._restart,
            "refusal": self._refuse,
            "clock jump": self._jump,
            "malformed": self._scribble,
            "client kill": self._client_kill,
            **dict.fromkeys(ON_PEERS, self._upon_peer),
        }

    async def strike(self, fault: Fault) -> None:
        """One fault; what lasts passes by itself."""
        await self._strikes[fault.kind](fault)

    async def calm(self) -> None:
        """Until all faults have passed, and what stays of them is put right. Raises what one of them ran into."""
        while self._passing:
            await asyncio.wait(self._passing)
        for command in wiped():
            await self._server.command(*command)
        for error in self._passed:
            raise error

    # -- workers

    async def _kill(self, fault: Fault) -> None:
        berth = await self.aim.frozen(fault)
        await self.toll.note(fault, berth.name)
        berth.worker.signal(signal.SIGKILL)
        await asyncio.to_thread(berth.worker.wait, 20)
        self._crew.replace(berth, same_name=fault.same_name)
        berth.busy = False

    async def _freeze(self, fault: Fault) -> None:
        berth = await self.aim.frozen(fault)
        await self.toll.note(fault, berth.name)

        async def thaw() -> None:
            await asyncio.sleep(fault.seconds)
            berth.worker.signal(signal.SIGCONT)
            berth.busy = False

        self._let_pass(thaw())

    async def _late_write(self, fault: Fault) -> None:
        berth = await self.aim.frozen(fault, least_chances=Terms().max_lost)
        await self.toll.note(fault, berth.name)
        ids = [job["id"] for job in await self.toll.running(berth.name)]
        berth.proxy.hold("settle")
        berth.worker.signal(signal.SIGCONT)

        async def release() -> None:
            with suppress(AssertionError, RedisUnreachable):  # they have ended, or the server is being restarted
                self.late += bool(await until(lambda: self._run_elsewhere(ids, berth.name), LATE_S))
            berth.proxy.release()
            berth.busy = False

        self._let_pass(release())

    async def _run_elsewhere(self, ids: Sequence[str], worker: str) -> bool:
        return any(job["id"] in ids and job["worker"] != worker for job in await self.toll.running())

    async def _terminate(self, fault: Fault) -> None:
        berth = await self.aim.free(fault)
        await self.toll.note(fault, berth.name)
        self._crew.dismiss(berth)

    # -- strangers

    async def _register(self, fault: Fault) -> None:
        await self.toll.note(fault)
        self._let_pass(self._strangers.register(self._redis, fault.number))

    async def _scribble(self, fault: Fault) -> None:
        await self.toll.note(fault)
        names = [berth.name for berth in self._crew.berths]
        writing = self._redis.pipeline(transaction=False)
        for command in scribbles(Random(fault.pick), names, self._inboxes):
            writing.execute_command(*command)
        await writing.execute(raise_on_error=False)  # the server itself refuses some

    # -- the server

    async def _restart(self, fault: Fault) -> None:
        await self.toll.note(fault)
        await until(self.toll.nobody_on_last_chance)
        await self._durable.stop()
        await asyncio.sleep(fault.seconds)
        await self._durable.start()

    async def _refuse(self, fault: Fault) -> None:
        """For longer than a lease: what runs then is lost by nobody's fault."""
        await self.toll.note(fault)
        await until(self.toll.nobody_on_last_chance)
        await refusals.refuse(self._durable, refusals.CODES[fault.number % len(refusals.CODES)], fault.seconds)

    async def _jump(self, fault: Fault) -> None:
        await self.toll.note(fault)
        await clock.jump(self._server, clock.HOUR_MS)
        await asyncio.sleep(fault.seconds)
        await clock.come_back(self._server)

    async def _client_kill(self, fault: Fault) -> None:
        await self.toll.note(fault)
        await self._server.command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")

    # -- a peer's way to it

    async def _upon_peer(self, fault: Fault) -> None:
        if fault.on_worker and fault.kind == "half-open":
            berth = await self.aim.frozen(fault)
        elif fault.on_worker:
            berth = await self.aim.free(fault)
        else:
            await self.toll.note(fault)
            self._disturb(fault, self._ways[int(fault.pick * len(self._ways))])
            return
        await self.toll.note(fault, berth.name)
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
        task.add_done_callback(self._note_passed)

    def _note_passed(self, task: asyncio.Task[None]) -> None:
        self._passing.discard(task)
        if not task.cancelled() and (error := task.exception()):
            self._passed.append(error)
