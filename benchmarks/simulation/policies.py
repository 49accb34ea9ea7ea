"""How a worker chooses: the product's own function, and three rules it is measured against.

``affinity`` and ``pure`` (affinity without the starvation bound) see what a real worker sees, the bounded view. The
rivals see the whole backlog, which flatters them; they take one job at a time, of any adapter that fits.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from typing import ClassVar, Protocol

from benchmarks.simulation.backlog import Backlog
from benchmarks.simulation.fleet import SimWorker
from lorapool.worker.loop.affinity import Choice, Homes, Policy, choose

LOOKS = 32  # adapters a rival tries before it waits for a slot
NEVER_MS = 10**12


class Chooser(Protocol):
    """One policy for the fleet. ``wakes_last_workers``: an arrival goes to one that ran its adapter lately."""

    wakes_last_workers: ClassVar[bool]

    def choose(self, backlog: Backlog, worker: SimWorker, now_s: float) -> Choice: ...


@dataclass
class Affinity:
    """lorapool.worker.loop.affinity."""

    wakes_last_workers: ClassVar[bool] = True

    homes: Homes
    policy: Policy = field(default_factory=Policy)

    def choose(self, backlog: Backlog, worker: SimWorker, now_s: float) -> Choice:
        view = backlog.view(worker.resident, now_s)
        return choose(view, worker.holding(now_s), worker.free_rows, self.policy, name_of(worker.index), self.homes)


def pure(homes: Homes) -> Affinity:
    """Those that are here before all others, however long these wait."""
    return Affinity(homes, Policy(starvation_ms=NEVER_MS, least_lead_ms=NEVER_MS))


class Arrival:
    """The oldest job first."""

    wakes_last_workers: ClassVar[bool] = False

    def choose(self, backlog: Backlog, worker: SimWorker, _now_s: float) -> Choice:
        ref_that_fits = next((ref for ref in backlog.ready.first(LOOKS) if worker.fits(ref)), None)
        return Choice((ref_that_fits,), 1, 1) if ref_that_fits is not None and worker.free_rows else Choice()


@dataclass
class Random:
    """A job of any adapter, each as likely as its backlog's being there."""

    wakes_last_workers: ClassVar[bool] = False

    draw: random.Random

    def choose(self, backlog: Backlog, worker: SimWorker, _now_s: float) -> Choice:
        if not worker.free_rows or not len(backlog.ready):
            return Choice()
        for _ in range(LOOKS):
            ref = backlog.ready.at(self.draw.randrange(len(backlog.ready)))
            if worker.fits(ref):
                return Choice((ref,), 1, 1)
        return Choice()


def name_of(worker: int) -> str:
    return f"worker-{worker}"
