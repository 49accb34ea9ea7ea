"""What do ``--slots`` and ``--max-batch`` do? One real worker a point, the same requests each time.

``python -m benchmarks.tuning --out FILE.json --sweep batch --sweep slots --plot FILE.png``. Without ``--sweep`` the
plot is of what is in the file. Requests of many adapters come all at once, in one shuffled order; every adapter has
been loaded from disk once before the clock starts, so that a miss costs host memory to device.
"""

from __future__ import annotations

import asyncio
import json
import random
import tempfile
import time
from collections.abc import Iterator, Sequence
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from benchmarks import hardware
from examples.base_model import prepare
from examples.demo import ADAPTERS
from examples.fleet import ROLES, derive
from examples.voices import UNSEEN
from lorapool.producer import Client, LorapoolError, Result
from lorapool.producer.local.process import LocalProcess
from lorapool.producer.local.server import embedded_server
from lorapool.producer.local.worker import OFFLINE, worker_process


class Sweep(StrEnum):
    """Which setting takes its turns; the other stays as it is."""

    BATCH = "batch"
    SLOTS = "slots"


ADAPTER_COUNT = 16
REQUESTS = 48
NEW_TOKENS = 24
POINTS = {Sweep.BATCH: (4, 8, 16, 32), Sweep.SLOTS: (2, 4, 8, 16)}
FIXED = {Sweep.BATCH: ("--slots", str(ADAPTER_COUNT)), Sweep.SLOTS: ("--max-batch", "16")}
FLAG = {Sweep.BATCH: "--max-batch", Sweep.SLOTS: "--slots"}
START_S = 120.0
console = Console()
Point = dict[str, float]


def main(
    out: Annotated[Path, typer.Option(help="The JSON; a sweep that is in it already is replaced.")],
    sweep: Annotated[list[Sweep] | None, typer.Option(help="What to measure; repeatable.")] = None,
    plot: Annotated[Path | None, typer.Option(help="Draw what the JSON holds.")] = None,
) -> None:
    """Measure, print a table a sweep, write the JSON after each point, draw."""
    sweeps: dict[str, Any] = json.loads(out.read_text()) if out.exists() else {}
    for each in sweep or ():
        sweeps[each] = {"points": [], "machine": hardware.describe()}
        for point in measure(each):
            sweeps[each]["points"].append(point)
            out.write_text(json.dumps(sweeps, indent=2) + "\n")
        show(each, sweeps[each]["points"])
    if plot is not None:
        from benchmarks.tuning_plot import draw

        draw(sweeps, plot)


def measure(sweep: Sweep) -> Iterator[Point]:
    """Every point of a sweep, on a server and a worker of its own."""
    with tempfile.TemporaryDirectory() as scratch:
        adapters = Path(scratch)
        for index in range(ADAPTER_COUNT):
            derive(ADAPTERS / ROLES[index % len(ROLES)], adapters / name_of(index), 0.9 + 0.2 * index / ADAPTER_COUNT)
        for value in POINTS[sweep]:
            with console.status(f"{FLAG[sweep]} {value}"):
                point = measure_point(sweep, value, adapters)
            yield point


def name_of(index: int) -> str:
    return f"agent-{index:02d}"


def measure_point(sweep: Sweep, value: int, adapters: Path) -> Point:
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        with embedded_server(folder) as url:
            flags = ["--redis-url", url, "--base-model", str(prepare()), "--adapter-root", str(adapters)]
            flags += ["--max-rank", "16", "--beat", "0.2", *FIXED[sweep], FLAG[sweep], str(value)]
            with worker_process(flags, folder, environment=OFFLINE) as worker:
                return {"value": value, **asyncio.run(ask(url, worker, adapters))}


async def ask(url: str, worker: LocalProcess, adapters: Path) -> Point:
    """Warm up, then all requests at once; what that took and what the pool counted."""
    async with Client(url) as pool:
        await started(pool, worker)
        for index in range(ADAPTER_COUNT):
            await pool.adapters.register(name_of(index), adapters / name_of(index))
        await answers(pool, [request(index, "Hello.", 2) for index in range(ADAPTER_COUNT)])
        await asyncio.sleep(0.5)  # a heartbeat with the warm-up's loads
        before, loads = await totals(pool), await loads_of(pool)
        order = [(index % ADAPTER_COUNT, UNSEEN[index % len(UNSEEN)]) for index in range(REQUESTS)]
        random.Random(5).shuffle(order)  # the same order every time
        began_s = time.monotonic()
        results = await answers(pool, [request(adapter, text, NEW_TOKENS) for adapter, text in order])
        took_s = time.monotonic() - began_s
        await asyncio.sleep(0.5)
        counted = {name: value - before[name] for name, value in (await totals(pool)).items()}
        return summary(results, took_s) | {
            "hit_rate": counted["slot_hits"] / (counted["slot_hits"] + counted["slot_misses"]),
            "loads": await loads_of(pool) - loads,
        }


def request(adapter: int, text: str, tokens: int) -> dict[str, object]:
    messages = [{"role": "user", "content": text}]
    sizes = {"max_new_tokens": tokens, "min_new_tokens": tokens, "ignore_eos": True}
    return {"adapter": name_of(adapter), "messages": messages, "agent": name_of(adapter), **sizes}


async def started(pool: Client, worker: LocalProcess) -> None:
    async with asyncio.timeout(START_S):
        while ["running"] != [beat["state"] for beat in await pool.workers()]:
            worker.check()
            await asyncio.sleep(0.1)


async def answers(pool: Client, requests: Sequence[dict[str, object]]) -> list[Result]:
    outcomes = await pool.gather(requests)
    for answer in outcomes:
        if isinstance(answer, LorapoolError):
            raise answer
    return [answer for answer in outcomes if isinstance(answer, Result)]


async def totals(pool: Client) -> dict[str, float]:
    stats = (await pool.all_stats()).values()
    return {name: sum(counters.get(name, 0) for counters in stats) for name in ("slot_hits", "slot_misses")}


async def loads_of(pool: Client) -> int:
    return sum(int(worker["adapter_loads"]) for worker in await pool.workers())


def summary(results: Sequence[Result], took_s: float) -> Point:
    first = sorted(result.timings.first_token_ms or 0 for result in results)
    total = sorted(result.timings.total_ms or 0 for result in results)
    pace = sorted(
        ((result.timings.total_ms or 0) - (result.timings.first_token_ms or 0)) / (NEW_TOKENS - 1) for result in results
    )
    return {
        "tokens_per_s": sum(result.usage.completion_tokens for result in results) / took_s,
        "first_token_ms_p50": first[len(first) // 2],
        "total_ms_p95": total[len(total) * 95 // 100],
        "ms_per_token_p50": pace[len(pace) // 2],
    }


def show(sweep: Sweep, points: Sequence[Point]) -> None:
    table = Table(box=None, header_style="bold")
    for name in points[0]:
        table.add_column(FLAG[sweep] if name == "value" else name, justify="right")
    for point in points:
        table.add_row(*(f"{value:,.2f}" if name == "hit_rate" else f"{value:,.0f}" for name, value in point.items()))
    console.print(table)


if __name__ == "__main__":
    typer.run(main)
