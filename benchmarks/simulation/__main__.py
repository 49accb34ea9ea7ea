"""``python -m benchmarks.simulation --out FILE.json [--plot DIR] [--quick]``."""

from __future__ import annotations

import argparse
import json
import time
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
ALL_LOADS = (0.5, 0.7, 0.9, 1.0, 1.2, 1.5)
SWEEP_LOAD = 1.2
BOUNDS_S, SHARES = (1.0, 2.0, 5.0, 10.0, 20.0), (0.25, 0.5, 1.0)
FLOOD_LOADS, FLOOD_JOBS = (0.7, 0.9), 10_000
FLOODED = {"shared adapter": 0, "own adapter": 50}  # the most popular one, and one that few others use


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.simulation", description=__doc__)
    parser.add_argument("--out", required=True, help="where the JSON goes")
    parser.add_argument("--plot", type=Path, help="folder for the pictures")
    parser.add_argument("--quick", action="store_true", help="the small fleet only")
    arguments = parser.parse_args()
    began = time.perf_counter()
    found = simulate(quick=arguments.quick)
    found["seconds"] = round(time.perf_counter() - began, 1)
    Path(arguments.out).write_text(json.dumps(found, indent=2) + "\n")
    show(found)
    if arguments.plot:
        from benchmarks.simulation.plots import draw

        for path in draw(found, arguments.plot):
            print(f"wrote {path}")


def simulate(*, quick: bool) -> dict[str, Any]:
    """The comparison at several scales, the sweep of the defaults, the flood."""
    plan = {SMALL: ALL_LOADS} if quick else {SMALL: ALL_LOADS, MIDDLE: ALL_LOADS, LARGE: ALL_LOADS}
    swept, flooded = (SMALL, SMALL) if quick else (MIDDLE, LARGE)
    comparisons = [Comparison(scale, loads) for scale, loads in plan.items()]
    sweep = Sweep(swept, SWEEP_LOAD, BOUNDS_S, SHARES)
    torrent = Torrent(flooded, FLOOD_LOADS, FLOODED, FLOOD_JOBS)
    seen = run_all(case for part in (*comparisons, sweep, torrent) for case in part.cases())
    return {
        "comparison": {str(part.scale): part.table(seen) for part in comparisons},
        "sweep": sweep.table(seen),
        "flood": torrent.table(seen),
    }


def show(found: dict[str, Any]) -> None:
    """A table a scale (``÷random``: loads to random's, ``÷arrival``: p99 wait to arrival's), and the floods."""
    console = Console()
    for scale, by_load in found["comparison"].items():
        table = Table("load", "policy", "loads/job", "p50 s", "p99 s", "longest s", "÷random", "÷arrival", title=scale)
        for load, row in by_load.items():
            for name, figures in row.items():
                table.add_row(load, name, *_cells(figures))
        console.print(table)
    flood = dict(found["flood"])
    floods = Table("flood of", "policy", "others' p95 calm", "flooded", "ratio", title=flood.pop("scale"))
    for where, row in flood.items():
        for name, seen in row.items():
            waits = (f"{seen[when]['p95_wait_s']:.2f}" for when in ("calm", "flooded"))
            floods.add_row(where, name, *waits, f"{seen['p95_ratio']:.2f}")
    console.print(floods)


def _cells(figures: dict[str, float]) -> list[str]:
    names = ("loads_per_job", "p50_wait_s", "p99_wait_s", "longest_backlogged_s", "loads_to_random", "p99_to_arrival")
    return [f"{figures[name]:.3g}" if name in figures else "" for name in names]


if __name__ == "__main__":
    main()
