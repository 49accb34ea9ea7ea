"""What is asked of the policy: loads, waits and starvation against three rivals; the defaults; a flood.

For each question the cases that answer it, and the table that their figures make.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from benchmarks.simulation.cases import POLICIES, Case, Figures, Scale
from lorapool.worker.loop.affinity import Policy

Seen = Mapping[Case, Figures]


@dataclass(frozen=True)
class Comparison:
    """Each policy at each load; ours also as ratios, to random's loads and arrival's p99."""

    scale: Scale
    loads: tuple[float, ...]

    def cases(self) -> Iterator[Case]:
        for load in self.loads:
            yield from self._row(load).values()

    def table(self, seen: Seen) -> dict[str, Any]:
        return {f"{load:g}": self._figures(load, seen) for load in self.loads}

    def _row(self, load: float) -> dict[str, Case]:
        return {name: Case(self.scale, name, load) for name in POLICIES}

    def _figures(self, load: float, seen: Seen) -> dict[str, Figures]:
        row = {name: seen[case] for name, case in self._row(load).items()}
        ours, random, arrival = row["affinity"], row["random"], row["arrival"]
        ratios = {
            "loads_to_random": round(ours["loads_per_job"] / random["loads_per_job"], 3),
            "p99_to_arrival": round(ours["p99_wait_s"] / max(arrival["p99_wait_s"], 1e-3), 3),
        }
        return {**row, "affinity": {**ours, **ratios}}


@dataclass(frozen=True)
class Sweep:
    """The starvation bound, and the share of the longest wait that adapters at hand may lead by."""

    scale: Scale
    load: float
    bounds_s: tuple[float, ...]
    shares: tuple[float, ...]

    def cases(self) -> Iterator[Case]:
        yield from self._points().values()

    def table(self, seen: Seen) -> dict[str, Any]:
        points = [
            {"bound_s": bound_s, "lead_share": share, **seen[case]} for (bound_s, share), case in self._points().items()
        ]
        return {"scale": str(self.scale), "load": self.load, "points": points}

    def _points(self) -> dict[tuple[float, float], Case]:
        return {
            (bound_s, share): Case(self.scale, Policy(starvation_ms=round(bound_s * 1000), lead_share=share), self.load)
            for bound_s in self.bounds_s
            for share in self.shares
        }


@dataclass(frozen=True)
class Torrent:
    """The others' waits with and without one agent that wants ``jobs`` of one adapter at once.

    ``adapters``: which, by what it is to the others.
    """

    scale: Scale
    loads: tuple[float, ...]
    adapters: Mapping[str, int]
    jobs: int

    def cases(self) -> Iterator[Case]:
        for load in self.loads:
            for adapter in self.adapters.values():
                for pair in self._pairs(load, adapter).values():
                    yield from pair

    def table(self, seen: Seen) -> dict[str, Any]:
        rows = {
            f"{where}, load {load:g}": {
                name: self._figures(seen[calm], seen[flooded])
                for name, (calm, flooded) in self._pairs(load, adapter).items()
            }
            for load in self.loads
            for where, adapter in self.adapters.items()
        }
        return {"scale": str(self.scale), **rows}

    def _pairs(self, load: float, adapter: int) -> dict[str, tuple[Case, Case]]:
        scale, flood = self.scale, self.scale.flood(adapter, self.jobs)
        return {name: (Case(scale, name, load), Case(scale, name, load, flood)) for name in ("affinity", "arrival")}

    def _figures(self, calm: Figures, flooded: Figures) -> dict[str, Any]:
        ratio = flooded["p95_wait_s"] / max(calm["p95_wait_s"], 1e-3)
        return {"calm": calm, "flooded": flooded, "p95_ratio": round(ratio, 3)}
