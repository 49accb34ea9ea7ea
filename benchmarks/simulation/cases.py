"""Cases: one simulated run each; run once, however many tables show it, on as many processes as there are cores.

Every figure is of a seeded run and comes out the same each time, on whichever process.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, field
from functools import cache

from rich.progress import track

from benchmarks.simulation.fleet import Shape
from benchmarks.simulation.policies import Affinity, Arrival, Chooser, Random, name_of, pure
from benchmarks.simulation.run import Outcome, Run
from benchmarks.simulation.workload import Flood, Traffic
from lorapool.worker.loop.affinity import Homes, Policy

WARM_UP = 0.25  # of the duration

Figures = Mapping[str, float]

POLICIES: Mapping[str, Callable[[Homes], Chooser]] = {
    "affinity": Affinity,  # as it ships
    "random": lambda _homes: Random(random.Random(2)),
    "arrival": lambda _homes: Arrival(),
    "pure": pure,
}


@dataclass(frozen=True)
class Scale:
    """A fleet and its adapters. A row computes a job in ``service_s``; load 1 keeps every row busy, loads apart."""

    workers: int
    adapters: int
    duration_s: float
    shape: Shape = field(default_factory=Shape)
    service_s: float = 4.0
    seed: int = 1

    def traffic(self, load: float) -> Traffic:
        rows = self.workers * self.shape.rows
        return Traffic(self.adapters, load * rows / self.service_s, self.service_s, self.duration_s, self.seed)

    def homes(self) -> Homes:
        return _homes(self.workers)

    def flood(self, adapter: int, jobs: int) -> Flood:
        """It begins where waits begin to count."""
        return Flood(adapter, jobs, at_s=WARM_UP * self.duration_s, service_s=self.service_s)

    def __str__(self) -> str:
        return f"{self.workers:,} workers × {self.adapters:,} adapters"


@cache
def _homes(workers: int) -> Homes:
    """Kept from run to run: ten million products for a thousand workers and ten thousand adapters."""
    return Homes(name_of(index) for index in range(workers))


@dataclass(frozen=True)
class Case:
    """``policy``: one of POLICIES, or ours with other numbers."""

    scale: Scale
    policy: str | Policy
    load: float
    flood: Flood | None = None

    def run(self) -> Outcome:
        scale, homes = self.scale, self.scale.homes()
        chooser = POLICIES[self.policy](homes) if isinstance(self.policy, str) else Affinity(homes, self.policy)
        fleet = Run(chooser, scale.workers, scale.shape, warm_up_s=WARM_UP * scale.duration_s)
        return fleet.go(scale.traffic(self.load).jobs(), self.flood)

    def figures(self) -> Figures:
        """Loads per job, waits in seconds, and the longest that any adapter's next job waited."""
        outcome = self.run()
        return {
            "jobs": outcome.jobs,
            "loads_per_job": round(outcome.loads_per_job, 4),
            "p50_wait_s": round(outcome.wait_s(0.5), 3),
            "p95_wait_s": round(outcome.wait_s(0.95), 3),
            "p99_wait_s": round(outcome.wait_s(0.99), 3),
            "longest_backlogged_s": round(outcome.longest_backlogged_s, 3),
            "flood_jobs_run": len(outcome.flood_waits_s),
        }


def run_all(cases: Iterable[Case]) -> dict[Case, Figures]:
    """Each once, the longest first; shows how far it is."""
    with ProcessPoolExecutor() as processes:
        longest_first = sorted(set(cases), key=lambda case: case.scale.workers, reverse=True)
        running = {processes.submit(case.figures): case for case in longest_first}
        done = track(as_completed(running), "simulating", total=len(running))
        return {running[future]: future.result() for future in done}
