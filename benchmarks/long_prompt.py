"""What does a long prompt do to those who decode beside it? The longest gap between their tokens, against one chunk.

``python -m benchmarks.long_prompt --out FILE.json``: sixteen rows decode, a prompt of 4,000 tokens joins. Its chunks
are also timed with nobody beside them, in the same rounds.
"""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Annotated

import typer
from rich.console import Console

from benchmarks import hardware
from benchmarks.engine import quiet
from benchmarks.ours import Ours, ResidentAdapters
from benchmarks.workload import build
from examples.base_model import prepare
from lorapool.shared.job import BASE_REF
from lorapool.worker.engine.continuous_batch import ContinuousBatch
from lorapool.worker.engine.port import Sampling
from lorapool.worker.engine.scheduler import Scheduler
from lorapool.worker.engine.sequence import Sequence

ROWS = 16


def main(
    out: Annotated[Path, typer.Option(help="Where the JSON goes.")],
    prompt: Annotated[int, typer.Option(min=2, help="Tokens of the long prompt.")] = 4000,
    chunk: Annotated[int, typer.Option(min=1, help="Prompt tokens a step.")] = 512,
    dtype: Annotated[str, typer.Option(help="bfloat16 or float32.")] = "bfloat16",
    rounds: Annotated[int, typer.Option(min=1, help="Counted rounds.")] = 3,
) -> None:
    """Measure, print two lines, write the JSON."""
    quiet()
    with tempfile.TemporaryDirectory() as scratch:
        ours = Ours(build(prepare(), Path(scratch), requests=ROWS, new_tokens=64, adapters=4, rank=16), dtype, 16)
    runs = [one_round(ours, prompt, chunk) for _ in range(rounds)]
    calm, alone, gap = (median(values) for values in zip(*runs, strict=True))
    report = {
        "decode_step_ms": calm,
        "longest_chunk_alone_ms": alone,
        "longest_gap_ms": gap,
        "gap_over_chunk_and_step": gap / (alone + calm),
        "workload": {"rows": ROWS, "prompt": prompt, "chunk": chunk, "dtype": dtype, "rounds": rounds},
        "hardware": hardware.describe(),
    }
    out.write_text(json.dumps(report, indent=2) + "\n")
    console = Console()
    console.print(
        f"{ROWS} rows decode in steps of {calm:.0f} ms; the longest chunk of {chunk} alone takes {alone:.0f} ms"
    )
    console.print(f"beside the {prompt}-token prompt their longest gap is {gap:.0f} ms; written to {out}")


def one_round(ours: Ours, prompt: int, chunk: int) -> tuple[float, float, float]:
    """Milliseconds: a decode step alone, the long prompt's longest chunk alone, the others' longest gap beside it."""
    alone = max(_steps_until_drawn(_engine(ours, chunk, rows=0), _long(ours, prompt)))
    engine = _engine(ours, chunk, rows=ROWS)
    calm = median(_gaps(_step(engine) for _ in range(8)))
    return calm, alone, max(_steps_until_drawn(engine, _long(ours, prompt)))


def _engine(ours: Ours, chunk: int, rows: int) -> ContinuousBatch:
    """An engine in which ``rows`` rows decode."""
    scheduler = Scheduler(max_batch=ROWS + 1, prefill_tokens=chunk)
    engine = ContinuousBatch(ours.runner, ResidentAdapters(), scheduler)
    for index in range(rows):
        engine.add(ours.sequence(index, active=4))
    while any(row.prefilling for row in (*scheduler.waiting, *scheduler.running)):
        engine.step()
    return engine


def _long(ours: Ours, prompt: int) -> Sequence:
    ids = [1 + index % 1000 for index in range(prompt)]
    return Sequence("long", BASE_REF, ids, Sampling(1))


def _steps_until_drawn(engine: ContinuousBatch, sequence: Sequence) -> list[float]:
    """Milliseconds of each step until the sequence has its token; then everything is dropped."""
    engine.add(sequence)
    seen = _gaps(iter(lambda: _step(engine) if not sequence.output_ids else None, None))
    for index in range(ROWS):
        engine.abort(str(index))
    engine.check_integrity()
    return seen


def _step(engine: ContinuousBatch) -> float:
    engine.step()
    return time.perf_counter()


def _gaps(moments: Iterator[float]) -> list[float]:
    return [1000 * (after - before) for before, after in pairwise([time.perf_counter(), *moments])]


if __name__ == "__main__":
    typer.run(main)
