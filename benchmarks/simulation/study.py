"""What is asked of the policy: loads, waits and starvation against three rivals; the defaults; a flood.

Every figure is of a seeded run and comes out the same each time.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any

from benchmarks.simulation.fleet import Shape
from benchmarks.simulation.policies import Affinity, Arrival, Chooser, Random, name_of, pure
from benchmarks.simulation.run import Outcome, Run
from benchmarks.simulation.workload import Flood, Traffic
from lorapool.worker.affinity import Homes, Policy

WARM_UP = 0.25  # of the duration


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

    def run(self, chooser: Chooser, load: float, flood: Flood | None = None) -> Outcome:
        fleet = Run(chooser, self.workers, self.shape, warm_up_s=WARM_UP * self.duration_s)
        return fleet.go(self.traffic(load).jobs(), flood)

    def __str__(self) -> str:
        return f"{self.workers:,} workers × {self.adapters:,} adapters"


@cache
def _homes(workers: int) -> Homes:
    """Kept from run to run: ten million hashes for a thousand workers and ten thousand adapters."""
    return Homes(name_of(index) for index in range(workers))


@cache
def _calm(scale: Scale, name: str, load: float) -> Outcome:
    """The same whatever is flooded."""
    return scale.run(rivals(scale.homes())[name], load)


def figures(outcome: Outcome) -> dict[str, float]:
    """Loads per job, waits in seconds, and the longest that any adapter's next job waited."""
    return {
        "jobs": outcome.jobs,
        "loads_per_job": round(outcome.loads_per_job, 4),
        "p50_wait_s": round(outcome.wait_s(0.5), 3),
        "p95_wait_s": round(outcome.wait_s(0.95), 3),
        "p99_wait_s": round(outcome.wait_s(0.99), 3),
        "longest_backlogged_s": round(outcome.longest_backlogged_s, 3),
    }


def rivals(homes: Homes) -> Mapping[str, Chooser]:
    """The policy as it ships, and what it is held against."""
    draw = random.Random(2)
    return {
        "affinity": Affinity(homes),
        "random": Random(draw),
        "arrival": Arrival(),
        "pure": pure(homes),
    }


def compare(scale: Scale, loads: Sequence[float], homes: Homes | None = None) -> dict[str, Any]:
    """Each policy at each load; affinity also as ratios, to random's loads and arrival's p99."""
    homes = homes or scale.homes()
    found: dict[str, Any] = {}
    for load in loads:
        row = {name: figures(scale.run(chooser, load)) for name, chooser in rivals(homes).items()}
        ours = row["affinity"]
        ours["loads_to_random"] = round(ours["loads_per_job"] / row["random"]["loads_per_job"], 3)
        ours["p99_to_arrival"] = round(ours["p99_wait_s"] / max(row["arrival"]["p99_wait_s"], 1e-3), 3)
        found[f"{load:g}"] = row
    return found


def sweep(scale: Scale, load: float, bounds_s: Sequence[float], shares: Sequence[float]) -> list[dict[str, float]]:
    """The starvation bound, and the share of the longest wait that adapters at hand may lead by."""
    homes, found = scale.homes(), []
    for bound_s in bounds_s:
        for share in shares:
            policy = Policy(starvation_ms=round(bound_s * 1000), lead_share=share)
            outcome = scale.run(Affinity(homes, policy), load)
            found.append({"bound_s": bound_s, "lead_share": share, **figures(outcome)})
    return found


def flood(scale: Scale, load: float, jobs: int, adapter: int) -> dict[str, Any]:
    """The others' waits with and without one agent that wants ``jobs`` of one adapter at once."""
    found: dict[str, Any] = {}
    torrent = Flood(adapter, jobs, at_s=WARM_UP * scale.duration_s, service_s=scale.service_s)
    for name in ("affinity", "arrival"):
        calm = _calm(scale, name, load)
        wild = scale.run(rivals(scale.homes())[name], load, torrent)
        ratio = wild.wait_s(0.95) / max(calm.wait_s(0.95), 1e-3)
        found[name] = {
            "calm": figures(calm),
            "flooded": figures(wild),
            "flood_jobs_run": len(wild.flood_waits_s),
            "p95_ratio": round(ratio, 3),
        }
    return found
