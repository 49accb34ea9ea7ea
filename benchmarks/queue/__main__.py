"""``python -m benchmarks.queue --out FILE.json [--quick] [--peers arq,bullmq] [--redis-url URL]``.

The server given by ``--redis-url`` is emptied; without one, an embedded Valkey is started.
"""

from __future__ import annotations

import argparse
import json
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.hardware import describe
from benchmarks.queue.contest import QUICK, Contest, Effort
from benchmarks.queue_peers.venvs import PEERS
from examples.local_pool import embedded_server, scratch_folder


def main() -> None:
    arguments = _parser().parse_args()
    names = [name for name in arguments.peers.split(",") if name]
    if unknown := [name for name in names if name not in PEERS]:
        raise SystemExit(f"unknown peers {', '.join(unknown)}; known: {', '.join(PEERS)}")
    effort = QUICK if arguments.quick else Effort()
    asked = {name: getattr(arguments, name) for name in ("jobs", "rounds", "matrix_rounds")}
    given = {name: value for name, value in asked.items() if value is not None}
    console = Console(stderr=True)
    hardware = describe()
    with ExitStack() as stack:
        url = arguments.redis_url or stack.enter_context(embedded_server(stack.enter_context(scratch_folder())))
        with console.status("queue") as status:
            figures = Contest(url, replace(effort, **given), names, status.update).run()
    figures = {"hardware": hardware, "load_1min_after": describe()["load_1min"], **figures}
    Path(arguments.out).write_text(json.dumps(figures, indent=2) + "\n")
    _show(figures)


def _show(figures: dict[str, Any]) -> None:
    table = Table("queue", "enqueued/s", "drained/s", "spread", "e2e p50 ms", "e2e p99 ms", "server µs a job")
    for name, row in [("ours", figures["ours"]), *figures["peers"].items()]:
        table.add_row(name, *_cells(row), *_trip(row.get("round_trip")), f"{row['cpu_us_job']:.0f}")
    table.add_row("ours, not awaited", *_cells(figures["ours"]["not_awaited"]))
    far = figures["ours"]["far"]
    table.add_row(f"ours, {far['added_ms']:g} ms away", *_cells(far), *_trip(far["round_trip"]))
    for name, row in figures["ours"]["matrix"].items():
        table.add_row(name, *_cells(row), "", "", f"{row['cpu_us_job']:.0f}")
    console = Console()
    console.print(table)
    if figures["ratio_to_best_peer"]:
        ratio, unawaited = figures["ratio_to_best_peer"], figures["ratio_not_awaited"]
        console.print(f"ours to the best peer: {ratio:.2f} with every result awaited, {unawaited:.2f} without")
    claim = figures["ours"]["claim"]
    console.print(f"a claim with many adapters registered to one with few: {claim['ratio']:.2f}")


def _cells(row: dict[str, Any]) -> list[str]:
    low, high = row["spread"]["drained_jobs_s"]
    return [f"{row['enqueued_jobs_s']:,.0f}", f"{row['drained_jobs_s']:,.0f}", f"{low:,.0f}–{high:,.0f}"]


def _trip(trip: dict[str, float] | None) -> list[str]:
    return [f"{trip['p50_ms']:.2f}", f"{trip['p99_ms']:.2f}"] if trip else ["", ""]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.queue", description=__doc__)
    parser.add_argument("--out", required=True, help="where the JSON goes")
    parser.add_argument("--quick", action="store_true", help="one round of a thousand jobs, no matrix")
    parser.add_argument("--peers", default=",".join(PEERS), help="comma-separated; empty for none")
    parser.add_argument("--redis-url", help="a server to use instead of an embedded Valkey; it is emptied")
    parser.add_argument("--jobs", type=int, help="jobs of one drain")
    parser.add_argument("--rounds", type=int, help="rounds of the comparison")
    parser.add_argument("--matrix-rounds", type=int, help="rounds of ours by workers, adapters and claim size")
    return parser


if __name__ == "__main__":
    main()
