"""``python -m benchmarks.simulation --out FILE.json [--plot DIR]``: the study that chose the policy's defaults.

``--quick`` takes the small fleet only. ``--workers 12 --adapters 300`` asks about a fleet of yours instead: what loads,
waits and a flood would be, in seconds.
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.simulation.cases import Scale, run_all
from benchmarks.simulation.fleet import Shape
from benchmarks.simulation.study import Comparison, Sweep, Torrent

SMALL = Scale(20, 200, 60.0, Shape(rows=16, slots=8))
MIDDLE = Scale(100, 1_000, 40.0)
LARGE = Scale(1_000, 10_000, 15.0)
LOADS = (0.5, 0.7, 0.9, 1.0, 1.2, 1.5)
SWEEP_LOAD = 1.2
BOUNDS_S, SHARES = (1.0, 2.0, 5.0, 10.0, 20.0), (0.25, 0.5, 1.0)
FLOOD_LOADS, FLOOD_JOBS = (0.7, 0.9), 10_000
LEAST_WAIT_S = 0.05  # a calm wait below this makes no ratio
FLOODED = {"shared adapter": 0, "own adapter": 50}  # the most popular one, and one that few others use


def main() -> None:
    arguments = _arguments()
    began = time.perf_counter()
    figures = simulate(_plan(arguments))
    figures["seconds"] = round(time.perf_counter() - began, 1)
    Path(arguments.out).write_text(json.dumps(figures, indent=2) + "\n")
    show(figures)
    if arguments.plot:
        from benchmarks.simulation.plots import draw

        for path in draw(figures, arguments.plot):
            print(f"wrote {path}")


def _arguments() -> argparse.Namespace:
    as_written = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser("python -m benchmarks.simulation", description=__doc__, formatter_class=as_written)
    parser.add_argument("--out", required=True, help="where the JSON goes")
    parser.add_argument("--plot", type=Path, help="folder for the pictures")
    parser.add_argument("--quick", action="store_true", help="the small fleet only")
    mine = parser.add_argument_group("a fleet of yours")
    mine.add_argument("--workers", type=int, help="ask about this many")
    mine.add_argument("--adapters", type=int, default=1_000, help="the n-th is asked for 1/n as often as the first")
    mine.add_argument("--rows", type=int, default=8, help="jobs that a worker computes at once")
    mine.add_argument("--slots", type=int, default=8, help="adapters that a worker holds")
    mine.add_argument("--load-s", type=float, default=0.5, help="seconds that an adapter's load takes")
    mine.add_argument("--job-s", type=float, default=4.0, help="seconds that a job takes")
    mine.add_argument("--seconds", type=float, default=15.0, help="how long jobs arrive")
    mine.add_argument("--load", type=float, action="append", help="1 keeps every row busy; may be given again")
    return parser.parse_args()


@dataclass(frozen=True)
class Plan:
    """What is asked."""

    comparisons: list[Comparison]
    torrent: Torrent
    sweep: Sweep | None = None


def _plan(arguments: argparse.Namespace) -> Plan:
    if arguments.workers:
        shape = Shape(arguments.rows, arguments.slots, arguments.load_s)
        scale = Scale(arguments.workers, arguments.adapters, arguments.seconds, shape, arguments.job_s)
        loads = tuple(arguments.load or FLOOD_LOADS)
        flooded = {"shared adapter": 0, "own adapter": arguments.adapters // 4}
        return Plan([Comparison(scale, loads)], Torrent(scale, loads, flooded, FLOOD_JOBS))
    fleets = [SMALL] if arguments.quick else [SMALL, MIDDLE, LARGE]
    return Plan(
        [Comparison(scale, LOADS) for scale in fleets],
        Torrent(fleets[-1], FLOOD_LOADS, FLOODED, FLOOD_JOBS),
        Sweep(fleets[len(fleets) // 2], SWEEP_LOAD, BOUNDS_S, SHARES),
    )


def simulate(plan: Plan) -> dict[str, Any]:
    """The comparison at several scales, the sweep of the defaults, the flood."""
    parts: list[Comparison | Torrent | Sweep] = [*plan.comparisons, plan.torrent]
    parts += [plan.sweep] if plan.sweep else []
    seen = run_all(case for part in parts for case in part.cases())
    return {
        "comparison": {str(part.scale): part.table(seen) for part in plan.comparisons},
        "flood": plan.torrent.table(seen),
        "sweep": plan.sweep.table(seen) if plan.sweep else None,
    }


def show(study: dict[str, Any]) -> None:
    """A table a scale (``÷random``: loads to random's, ``÷arrival``: p99 wait to arrival's), and the floods."""
    console = Console()
    for scale, by_load in study["comparison"].items():
        table = Table("load", "policy", "loads/job", "p50 s", "p99 s", "longest s", "÷random", "÷arrival", title=scale)
        for load, row in by_load.items():
            for name, figures in row.items():
                table.add_row(load, name, *_cells(figures))
        console.print(table)
    flood = dict(study["flood"])
    floods = Table("flood of", "policy", "others' p95 calm", "flooded", "ratio", title=flood.pop("scale"))
    for where, row in flood.items():
        for name, seen in row.items():
            waits = (f"{seen[when]['p95_wait_s']:.2f}" for when in ("calm", "flooded"))
            telling = seen["calm"]["p95_wait_s"] >= LEAST_WAIT_S
            floods.add_row(where, name, *waits, f"{seen['p95_ratio']:.2f}" if telling else "")
    console.print(floods)


def _cells(figures: dict[str, float]) -> list[str]:
    names = ("loads_per_job", "p50_wait_s", "p99_wait_s", "longest_backlogged_s", "loads_to_random", "p99_to_arrival")
    return [f"{figures[name]:.3g}" if name in figures else "" for name in names]


if __name__ == "__main__":
    main()
