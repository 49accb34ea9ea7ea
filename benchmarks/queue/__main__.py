"""``python -m benchmarks.queue --out FILE.json [--quick] [--parts drains,trips] [--peers arq] [--redis-url URL]``.

The server given by ``--redis-url`` is emptied; without one, an embedded Valkey is started. With ``--parts``, what was
measured is added to what FILE.json has already.
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
from benchmarks.queue.contest import PARTS, QUICK, Contest, Effort, merged, ratios
from benchmarks.queue_peers.venvs import PEERS
from lorapool.producer.local.process import scratch_folder
from lorapool.producer.local.server import embedded_server


def main() -> None:
    arguments = _parser().parse_args()
    names = [name for name in arguments.peers.split(",") if name]
    if unknown := [name for name in names if name not in PEERS]:
        raise SystemExit(f"unknown peers {', '.join(unknown)}; known: {', '.join(PEERS)}")
    parts = arguments.parts.split(",") if arguments.parts else PARTS
    if unknown := [part for part in parts if part not in PARTS]:
        raise SystemExit(f"unknown parts {', '.join(unknown)}; known: {', '.join(PARTS)}")
    effort = QUICK if arguments.quick else Effort()
    asked = {name: getattr(arguments, name) for name in ("jobs", "rounds", "matrix_rounds")}
    given = {name: value for name, value in asked.items() if value is not None}
    console = Console(stderr=True)
    hardware = describe()
    with ExitStack() as stack:
        url = arguments.redis_url or stack.enter_context(embedded_server(stack.enter_context(scratch_folder())))
        with console.status("queue") as status:
            figures = Contest(url, replace(effort, **given), names, status.update).run(parts)
    out = Path(arguments.out)
    before = json.loads(out.read_text()) if arguments.parts and out.exists() else {}
    figures = {"hardware": hardware, "load_1min_after": describe()["load_1min"], **merged(before, figures)}
    figures |= ratios(figures)
    out.write_text(json.dumps(figures, indent=2) + "\n")
    _show(figures)


def _show(figures: dict[str, Any]) -> None:
    table = Table("queue", "enqueued/s", "drained/s", "least–most", "e2e p50 ms", "p99 ms", "server µs a job")
    ours, peers = figures["ours"], figures["peers"]
    rows = {"ours": ours, "ours, not awaited": ours.get("not_awaited", {}), **peers}
    if far := ours.get("far", {}):
        rows[f"ours, {far['added_ms']:g} ms away"] = far
    for name, row in {**rows, **ours.get("matrix", {})}.items():
        table.add_row(name, *_cells(row))
    console = Console()
    console.print(table)
    if "ratio_to_best_peer" in figures:
        awaited, unawaited = figures["ratio_to_best_peer"], figures["ratio_not_awaited"]
        console.print(f"ours to the best peer: {awaited:.2f} with every result awaited, {unawaited:.2f} without")
    if claim := ours.get("claim"):
        console.print(f"a claim with many adapters registered to one with few: {claim['ratio']:.2f}")


def _cells(row: dict[str, Any]) -> list[str]:
    drained, trip = ["", "", ""], row.get("round_trip", {})
    if "drained_jobs_s" in row:
        low, high = row["spread"]["drained_jobs_s"]
        drained = [f"{row['enqueued_jobs_s']:,.0f}", f"{row['drained_jobs_s']:,.0f}", f"{low:,.0f}–{high:,.0f}"]
    trips = [f"{trip[name]:.2f}" if trip else "" for name in ("p50_ms", "p99_ms")]
    return [*drained, *trips, f"{row['cpu_us_job']:.0f}" if "cpu_us_job" in row else ""]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.queue", description=__doc__)
    parser.add_argument("--out", required=True, help="where the JSON goes")
    parser.add_argument("--quick", action="store_true", help="one round of a thousand jobs, no matrix")
    parser.add_argument("--parts", help=f"of {','.join(PARTS)}: only these, added to the file")
    parser.add_argument("--peers", default=",".join(PEERS), help="comma-separated; empty for none")
    parser.add_argument("--redis-url", help="a server to use instead of an embedded Valkey; it is emptied")
    parser.add_argument("--jobs", type=int, help="jobs of one drain")
    parser.add_argument("--rounds", type=int, help="rounds of the comparison")
    parser.add_argument("--matrix-rounds", type=int, help="rounds of ours by workers, adapters and claim size")
    return parser


if __name__ == "__main__":
    main()
