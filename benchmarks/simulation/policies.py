"""How a worker chooses: the product's own function, and three rules it is measured against.

``affinity`` and ``pure`` (affinity without the starvation bound) see what a real worker sees, the bounded view. The
rivals see the whole backlog, which flatters them; they take one job at a time, of any adapter that fits.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from typing import Protocol

from benchmarks.simulation.backlog import Backlog
from benchmarks.simulation.fleet import SimWorker
from lorapool.worker.affinity import Choice, Holding, Homes, Policy, choose

LOOKS = 32  # adapters a rival tries before it waits for a slot
NEVER_MS = 10**12


class Chooser(Protocol):
    """One policy for the whole fleet."""

    def choose(self, backlog: Backlog, worker: SimWorker, now_s: float) -> Choice: ...
    def claimed(self, worker: SimWorker, choice: Choice, refs: set[str]) -> None: ...


@dataclass
class Affinity:
    """lorapool.worker.affinity, with the turns of overdue adapters counted as the claimer does."""

    homes: Homes
    policy: Policy = field(default_factory=Policy)

    def choose(self, backlog: Backlog, worker: SimWorker, now_s: float) -> Choice:
        holding = worker.holding(overdue_turn=worker.claims_since_overdue >= self.policy.claims_per_overdue - 1)
        view = backlog.view(worker.resident, now_s)
        return choose(view, holding, worker.free_rows, self.policy, name_of(worker.index), self.homes)

    def claimed(self, worker: SimWorker, choice: Choice, refs: set[str]) -> None:
        worker.claims_since_overdue = 0 if refs & choice.overdue else worker.claims_since_overdue + 1


def pure(homes: Homes) -> Affinity:
    """Never takes an adapter for having waited long."""
    return Affinity(homes, Policy(starvation_ms=NEVER_MS))


@dataclass
class Aged:
    """A candidate: order of arrival, in which the adapters a worker holds count as ``lead_s`` older than they are.

    Whoever waits is overtaken by at most that much. Needs a view by the age of each adapter's oldest job.
    """

    lead_s: float = 10.0

    def choose(self, backlog: Backlog, worker: SimWorker, now_s: float) -> Choice:
        holding = worker.holding(overdue_turn=False)
        view = backlog.view(worker.resident, now_s, by_age=True)
        lead_ms = round(self.lead_s * 1000)
        ages = {
            item.ref: item.oldest_ms - lead_ms * (item.ref in holding.resident or item.ref in holding.held)
            for item in view.waiting
        }
        ordered = sorted(ages, key=lambda ref: (ages[ref], ref))
        return _fitting(ordered, holding, worker.free_rows)

    def claimed(self, worker: SimWorker, choice: Choice, refs: set[str]) -> None:
        """Keeps nothing."""


def _fitting(ordered: list[str], holding: Holding, rows: int) -> Choice:
    """Those that fit the slots; if the first does not, the held adapter nearest to done gives way."""
    left = holding.open_slots()
    if ordered and not left and not holding.fits(ordered[0]):
        yielding = min(holding.held, key=lambda ref: (holding.held[ref], ref))
        ordered = [ref for ref in ordered if ref != yielding]
    fitting = []
    for ref in ordered:
        fits = holding.fits(ref)
        if fits or left > 0:
            fitting.append(ref)
            left -= not fits
    return Choice(tuple(fitting), rows, -(-rows // len(fitting))) if rows and fitting else Choice()


class Arrival:
    """The oldest job first."""

    def choose(self, backlog: Backlog, worker: SimWorker, _now_s: float) -> Choice:
        found = next((ref for ref in backlog.by_age.first(LOOKS) if worker.fits(ref)), None)
        return Choice((found,), 1, 1) if found is not None and worker.free_rows else Choice()

    def claimed(self, worker: SimWorker, choice: Choice, refs: set[str]) -> None:
        """Keeps nothing."""


@dataclass
class Random:
    """A job of any adapter, each as likely as its backlog's being there."""

    draw: random.Random

    def choose(self, backlog: Backlog, worker: SimWorker, _now_s: float) -> Choice:
        if not worker.free_rows or not len(backlog.ready):
            return Choice()
        for _ in range(LOOKS):
            ref = backlog.ready.at(self.draw.randrange(len(backlog.ready)))
            if worker.fits(ref):
                return Choice((ref,), 1, 1)
        return Choice()

    def claimed(self, worker: SimWorker, choice: Choice, refs: set[str]) -> None:
        """Keeps nothing."""


def name_of(worker: int) -> str:
    return f"worker-{worker}"
