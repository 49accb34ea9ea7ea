"""EngineStriker: the faults below a worker: its engine's process dies or hangs, its device or its mount falls ill."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable, Coroutine, Sequence
from contextlib import suppress
from random import Random
from typing import Any

from tests.chaos.aim import Aim
from tests.chaos.crew import Berth, Crew, engine_of
from tests.chaos.plan import STEP_TIMEOUT_S, Fault
from tests.chaos.toll import Toll
from tests.fleet import until

ROWS = 2  # what a full device has room for
NOTICED_S = 10 * STEP_TIMEOUT_S  # a hung engine was ended, a sick device's worker has left
SHARE = 0.3  # of the adapters, which a mount that is away had


class EngineStriker:
    """``refs``: adapters that may be unreachable somewhere; ``let_pass`` is handed what a fault does by and by."""

    def __init__(
        self,
        crew: Crew,
        aim: Aim,
        toll: Toll,
        refs: Sequence[str],
        let_pass: Callable[[Coroutine[Any, Any, None]], None],
    ) -> None:
        self._crew, self._aim, self._toll, self._refs, self._let_pass = crew, aim, toll, refs, let_pass

    async def kill_engine(self, fault: Fault) -> None:
        """What it was busy with is lost, its worker is not."""
        berth, engine = await self._with_engine(fault)
        await self._toll.note(fault, berth.name)
        os.kill(engine, signal.SIGKILL)
        berth.worker.signal(signal.SIGCONT)
        berth.busy = False

    async def hang_engine(self, fault: Fault) -> None:
        """Until its worker ends it."""
        berth, engine = await self._with_engine(fault)
        await self._toll.note(fault, berth.name)
        os.kill(engine, signal.SIGSTOP)
        berth.worker.signal(signal.SIGCONT)

        async def ended() -> None:
            await until(lambda: engine_of(berth.worker) != engine, NOTICED_S, every_s=0.1)
            berth.busy = False

        self._let_pass(ended())

    async def sicken(self, fault: Fault) -> None:
        """For good: the worker leaves, its successor has another device."""
        berth = await self._aim.free(fault)
        berth.busy = True
        await self._toll.note(fault, berth.name)
        berth.ailments.fall_sick()

        async def left() -> None:
            with suppress(AssertionError):  # it had nothing to do any more, so that it never knew
                await until(lambda: berth.worker.process.poll() is not None, NOTICED_S, every_s=0.05)
            berth.ailments.recover()
            berth.busy = False

        self._let_pass(left())

    async def fill(self, fault: Fault) -> None:
        """Fewer rows a step for a while, no job the worse for it."""
        await self._for_a_while(fault, lambda berth: berth.ailments.fill(ROWS))

    async def unmount(self, fault: Fault) -> None:
        """Jobs of some adapters are for other workers, for a while."""
        refs = Random(fault.pick).sample(self._refs, max(1, round(SHARE * len(self._refs))))
        await self._for_a_while(fault, lambda berth: berth.ailments.unmount(refs))

    async def _for_a_while(self, fault: Fault, ail: Callable[[Berth], None]) -> None:
        berth = await self._aim.free(fault)
        berth.busy = True
        await self._toll.note(fault, berth.name)
        ail(berth)

        async def recover() -> None:
            await asyncio.sleep(fault.seconds)
            berth.ailments.recover()
            berth.busy = False

        self._let_pass(recover())

    async def _with_engine(self, fault: Fault) -> tuple[Berth, int]:
        """A frozen worker that runs jobs, and its engine's process."""
        while True:
            berth = await self._aim.frozen(fault, running=True)
            engine = engine_of(berth.worker)
            if engine is not None:
                return berth, engine
            berth.worker.signal(signal.SIGCONT)
            berth.busy = False
            await asyncio.sleep(0.2)
