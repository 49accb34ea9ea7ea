"""A simulated worker: rows that compute jobs, and adapter slots under an LRU with one loader.

Knows how long things take; which jobs it gets is the policy's. A job's row waits for its adapter's load.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from dataclasses import dataclass, field

from benchmarks.simulation.backlog import SimJob
from lorapool.worker.loop.affinity import Holding


@dataclass(frozen=True)
class Shape:
    """One worker's size. ``load_s``: to bring one adapter into a slot; loads of a worker go one after another."""

    rows: int = 8
    slots: int = 8
    load_s: float = 0.5


@dataclass(slots=True)
class SimWorker:
    """``index`` names it. ``resident`` is in LRU order: ref -> when its load is done."""

    index: int
    shape: Shape
    resident: OrderedDict[str, float] = field(default_factory=OrderedDict)
    held: Counter[str] = field(default_factory=Counter)
    loads: int = 0
    loader_free_s: float = 0.0

    @property
    def free_rows(self) -> int:
        return self.shape.rows - self.held.total()

    def holding(self, now_s: float) -> Holding:
        loads = self.loader_free_s > now_s
        return Holding(self.shape.slots, frozenset(self.resident), dict(self.held), loads)

    def fits(self, ref: str) -> bool:
        """Whether a job of it could run now: resident, or a slot is not in use."""
        return ref in self.held or len(self.held) < self.shape.slots

    def start(self, job: SimJob, now_s: float) -> float:
        """Give the job a row; returns when it begins to compute."""
        if job.ref not in self.resident:
            self._load(job.ref, now_s)
        self.resident.move_to_end(job.ref)
        self.held[job.ref] += 1
        return max(now_s, self.resident[job.ref])

    def finish(self, job: SimJob) -> None:
        self.held[job.ref] -= 1
        if not self.held[job.ref]:
            del self.held[job.ref]

    def _load(self, ref: str, now_s: float) -> None:
        if len(self.resident) >= self.shape.slots:
            idle = next(other for other in self.resident if other not in self.held)
            del self.resident[idle]
        self.loader_free_s = max(self.loader_free_s, now_s) + self.shape.load_s
        self.resident[ref] = self.loader_free_s
        self.loads += 1
