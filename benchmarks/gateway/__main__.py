"""What does HTTP cost over the Python client, and how does the gateway compare with other doors?

``python -m benchmarks.gateway --out FILE.json [--parts latency,requests,streams,tokens] [--vllm-s 240]``. All that is
compared takes turns, round by round; read the ratios. The jobs of all parts but ``tokens`` are no-ops; that one is
workload W on the real model (benchmarks/through.py).
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import asdict
from functools import partial
from pathlib import Path
from statistics import median
from subprocess import SubprocessError
from typing import Annotated, Any

import typer
from rich.console import Console

from benchmarks import hardware, rounds
from benchmarks.gateway import doors, measure, tokens
from benchmarks.gateway.doors import Door
from lorapool.producer.local.process import scratch_folder

PARTS = ("latency", "requests", "streams", "tokens")
STEP_MS = 250.0  # of the worker that 1,000 streams wait for: four words a second each
console = Console()


def main(
    out: Annotated[Path, typer.Option(help="Where the JSON goes; parts that were measured before are kept.")],
    parts: Annotated[str, typer.Option(help=f"Of {','.join(PARTS)}.")] = ",".join(PARTS),
    rounds_: Annotated[int, typer.Option("--rounds", min=1, help="Turns of each.")] = 5,
    count: Annotated[int, typer.Option(min=1, help="Requests of a turn.")] = 2000,
    connections: Annotated[int, typer.Option(min=1, help="Requests at a time.")] = 32,
    streams: Annotated[int, typer.Option(min=1, help="Streams at a time.")] = 1000,
    vllm_s: Annotated[float, typer.Option(help="How long vLLM's server may take to come up; 0 leaves it out.")] = 240.0,
    dtype: Annotated[str, typer.Option(help="Of the engine in the part `tokens`.")] = "bfloat16",
    w_requests: Annotated[int, typer.Option(min=1, help="Requests at once in the part `tokens`.")] = 64,
    w_tokens: Annotated[int, typer.Option(min=2, help="Tokens drawn for each of them.")] = 64,
) -> None:
    """Measure, print, write the JSON."""
    asked = parts.split(",")
    if unknown := set(asked) - set(PARTS):
        raise typer.BadParameter(f"unknown parts {', '.join(sorted(unknown))}; known: {', '.join(PARTS)}")
    figures: dict[str, Any] = json.loads(out.read_text()) if out.exists() else {}
    run: dict[str, Callable[[Path], dict[str, Any]]] = {
        "latency": partial(_latency, turns=rounds_, count=min(count, 300)),
        "requests": partial(_requests, turns=rounds_, count=count, connections=connections, vllm_s=vllm_s),
        "streams": partial(_streams, turns=min(rounds_, 3), count=streams),
        "tokens": partial(tokens.run, turns=rounds_, dtype=dtype, requests=w_requests, new_tokens=w_tokens),
    }
    for part in asked:
        with scratch_folder() as folder:
            figures[part] = {**run[part](folder), "hardware": hardware.describe()}
        out.write_text(json.dumps(figures, indent=2) + "\n")
        console.print(part, {name: value for name, value in figures[part].items() if name != "hardware"})


def _latency(folder: Path, *, turns: int, count: int) -> dict[str, Any]:
    """p50 of a job alone, by the client and over HTTP, and what HTTP adds: the median of the pairs' differences."""
    seen: dict[str, list[float]] = {"client_p50_ms": [], "gateway_p50_ms": [], "added_p50_ms": []}
    with doors.ours(folder) as door:
        asyncio.run(measure.warmed(door.redis_url))
        for _ in range(turns):
            client_ms, http_ms = measure.latencies(door, count)
            added = [over - under for under, over in zip(client_ms, http_ms, strict=True)]
            for values, figures in zip(seen.values(), (client_ms, http_ms, added), strict=True):
                values.append(median(figures))
    return {name: asdict(rounds.summarize(values)) for name, values in seen.items()}


def _requests(folder: Path, *, turns: int, count: int, connections: int, vllm_s: float) -> dict[str, Any]:
    """Requests a second on no-op jobs, of ours and the peers."""
    with ExitStack() as stack:
        opened, left_out = _opened(stack, folder, vllm_s)
        asyncio.run(measure.warmed(opened["lorapool"].redis_url))
        loads = {
            name: measure.Requests(door, connections, count if name == "lorapool" else max(100, count // 5))
            for name, door in opened.items()
        }
        measured = rounds.run({name: rounds.Entry(load.run, turns) for name, load in loads.items()})
    return {
        name: {
            "requests_s": asdict(rounds.summarize(values)),
            "p50_ms": median(loads[name].p50_ms),
            "cpu_us_request": median(loads[name].cpu_us),
            "ratio": asdict(rounds.summarize(_ratios(measured["lorapool"], values))),
        }
        for name, values in measured.items()
        if values
    } | {"left_out": left_out}


def _opened(stack: ExitStack, folder: Path, vllm_s: float) -> tuple[dict[str, Door], dict[str, str]]:
    """The doors that opened, and why the others did not."""
    opening: dict[str, Callable[[Path], Any]] = {
        "lorapool": doors.ours,
        "litellm, answering itself": partial(doors.litellm, mock=False),
        "litellm, before a server": partial(doors.litellm, mock=True),
    }
    if vllm_s:
        opening["vllm"] = partial(doors.vllm, within_s=vllm_s)
    opened, left_out = dict[str, Door](), dict[str, str]()
    for number, (name, door) in enumerate(opening.items()):
        own = folder / str(number)
        own.mkdir()
        try:
            opened[name] = stack.enter_context(door(own))
        except (rounds.Failed, OSError, SubprocessError) as error:
            if name == "lorapool":
                raise
            left_out[name] = str(error)
    return opened, left_out


def _streams(folder: Path, *, turns: int, count: int) -> dict[str, Any]:
    """Streams at a time through one gateway process."""
    with doors.ours(folder, concurrency=count, step_ms=STEP_MS) as door:
        asyncio.run(measure.warmed(door.redis_url))
        seen = [measure.streams(door, count, tokens=16) for _ in range(turns)]
    names = [name for name, value in seen[0].items() if isinstance(value, float | int)]
    return {"streams": count, **{name: asdict(rounds.summarize([one[name] for one in seen])) for name in names}}


def _ratios(ours: list[float], theirs: list[float]) -> list[float]:
    return [mine / other for mine, other in zip(ours, theirs, strict=False)]


if __name__ == "__main__":
    typer.run(main)
