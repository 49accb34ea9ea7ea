"""Aim: which worker a fault strikes.

It spares a worker that runs a job already lost all but once: one more loss would be the death of that job, and whether
that was bad luck or poison is what the protocol cannot tell. (It looks while the worker is frozen, so that what it sees
holds.) Every other job may be hit as often as it comes.
"""

from __future__ import annotations

import asyncio
import signal
from itertools import count

from lorapool.shared.server.terms import Terms
from tests.chaos.crew import Berth, Crew
from tests.chaos.plan import Fault
from tests.chaos.toll import Toll

ARRIVES_S = 0.06  # until what a worker sent before it was frozen has arrived, a claim above all
FULL_TRIES = 10  # looks for a worker that has jobs


class Aim:
    """``spared``: strikes that were not made for the sake of a job."""

    def __init__(self, crew: Crew, toll: Toll) -> None:
        self._crew, self._toll = crew, toll
        self.spared = 0

    async def free(self, fault: Fault, turn: int = 0) -> Berth:
        """A worker at work, upon which no fault is yet; another each ``turn``."""
        while not (free := [berth for berth in self._crew.berths if berth.free]):  # noqa: ASYNC110 - processes
            await asyncio.sleep(0.05)
        return free[(int(fault.pick * len(free)) + turn) % len(free)]

    async def frozen(self, fault: Fault, least_chances: int = 2, *, running: bool = False) -> Berth:
        """A worker that may be struck, busy and not running; one that has jobs, if there is any within a while.

        None of its jobs has fewer chances left than ``least_chances``. ``running``: it has some, or there is no suspect
        that it might claim by itself.
        """
        for tries in count(1):
            berth = await self.free(fault, tries - 1)
            berth.busy = True
            berth.worker.signal(signal.SIGSTOP)
            await asyncio.sleep(ARRIVES_S)
            chances = [Terms().max_lost - job["lost"] for job in await self._toll.running(berth.name)]
            spares = min(chances, default=least_chances) < least_chances
            if chances and not spares:
                return berth
            if tries > FULL_TRIES and not chances and not (running and await self._toll.suspects()):
                return berth
            self.spared += spares
            berth.worker.signal(signal.SIGCONT)
            berth.busy = False
            await asyncio.sleep(0.2)
        raise AssertionError
