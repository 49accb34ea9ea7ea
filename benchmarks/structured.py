"""What does a structured answer cost? Rows that are held to a grammar against the same rows free, on workload W.

``python -m benchmarks.structured --out FILE.json``: free rows, half of them held, all of them held, in turn, as many
tokens each; then what masks and compiling take over two hundred schemas, and the longest step while hostile grammars
join rows that are free. The processor's time is told beside the clock's: on a machine that others keep busy, it alone
says what a grammar costs (then with OMP_NUM_THREADS=1, so that no thread spins in wait of another). Knows no queue.
"""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from random import Random
from statistics import median, quantiles
from typing import Annotated, Any, NamedTuple

import numpy as np
import typer
from llguidance import LLMatcher, LLTokenizer
from rich.console import Console

from benchmarks import hardware
from benchmarks import rounds as turns
from benchmarks.engine import quiet
from benchmarks.ours import Ours, ResidentAdapters
from benchmarks.rounds import Entry, Summary
from benchmarks.workload import build
from examples.base_model import prepare
from lorapool.shared.errors import InvalidRequest
from lorapool.shared.job import BASE_REF
from lorapool.shared.response_format import ResponseFormat
from lorapool.worker.engine.continuous_batch import ContinuousBatch
from lorapool.worker.engine.port import Sampling, Update
from lorapool.worker.engine.scheduler import Scheduler
from lorapool.worker.engine.sequence import Sequence
from lorapool.worker.grammar.compiler import compiled, vocabulary
from lorapool.worker.grammar.grammars import Grammars, Masks
from lorapool.worker.grammar.judge import GrammarJudge
from lorapool.worker.text.grammar import grammar_of, of_schema
from tests.structured.hostile import HOSTILE
from tests.structured.schemas import COUNT, FLAG, SCHEMAS, TEXT, closed

console = Console()
ROWS = 16  # free ones, that hostile ones join
CROWD, WALK = 64, 60  # rows of the same hostile form, tokens drawn for each
ITEMS = (
    closed({"name": TEXT, "count": COUNT, "ok": FLAG}),
    closed({"kind": {"enum": ["red", "green", "blue"]}, "at": {"type": "string", "format": "date"}}),
    closed({"inner": closed({"x": {"type": "number"}, "tags": {"type": "array", "items": TEXT}})}),
    {"anyOf": [closed({"a": COUNT}), closed({"b": {"type": "string"}}), {"type": "null"}]},
)  # each in a list that has no end within the tokens of a row


class Step(NamedTuple):
    """How long it took, by the clock and by the processor's time, of all threads."""

    ms: float
    cpu_ms: float


class TimedGrammars(Grammars):
    """``took_s``: of each call that made masks."""

    def __init__(self, tokens: LLTokenizer) -> None:
        super().__init__(tokens)
        self.took_s: list[float] = []

    def masks(self, rows: Any) -> Masks | None:
        began_s = time.perf_counter()
        made = super().masks(rows)
        if made is not None:
            self.took_s.append(time.perf_counter() - began_s)
        return made


@dataclass(slots=True)
class Held:
    """A row of which only the grammar counts."""

    matcher: LLMatcher
    grammar: str | None = None
    output_ids: list[int] = field(default_factory=list)
    bans_eos: bool = False


def main(
    out: Annotated[Path, typer.Option(help="Where the JSON goes.")],
    requests: Annotated[int, typer.Option(min=1, help="Rows.")] = 64,
    new_tokens: Annotated[int, typer.Option(min=2, help="Tokens drawn for each.")] = 64,
    adapters: Annotated[int, typer.Option(min=1, help="Adapters in the batch.")] = 16,
    rank: Annotated[int, typer.Option(min=1, help="Rank of each adapter.")] = 16,
    dtype: Annotated[str, typer.Option(help="bfloat16 or float32.")] = "bfloat16",
    rounds: Annotated[int, typer.Option(min=1, help="Counted rounds, after one warm-up.")] = 5,
) -> None:
    """Measure, print, write the JSON."""
    quiet()
    fast = (prepare() / "tokenizer.json").read_text()
    tokens = vocabulary(fast, [0, 2])
    sizes = {"requests": requests, "new_tokens": new_tokens, "adapters": adapters, "rank": rank}
    with tempfile.TemporaryDirectory() as scratch:
        timed = TimedGrammars(tokens)
        ours = Ours(build(prepare(), Path(scratch), **sizes), dtype, rank, timed)
    by_clock, by_cpu = _in_turn(ours, rounds)
    report = {
        "tokens_s": {name: asdict(summary) for name, summary in by_clock.items()},
        "tokens_per_cpu_s": {name: asdict(summary) for name, summary in by_cpu.items()},
        "held_over_free": by_clock["held"].median / by_clock["free"].median,
        "held_over_free_by_cpu": by_cpu["held"].median / by_cpu["free"].median,
        "half_over_free_by_cpu": by_cpu["half"].median / by_cpu["free"].median,
        "mask_call_ms": _spread(timed.took_s),
        **_grammar_times(tokens),
        "hostile": _hostile(ours, timed, fast),
        "workload": {**sizes, "dtype": dtype, "rounds": rounds},
        "hardware": hardware.describe(),
    }
    out.write_text(json.dumps(report, indent=2) + "\n")
    _print(report, out)


_SHARES = {"free": 0, "half": 2, "held": 1}  # every so many rows is held; 0: none


def _in_turn(ours: Ours, rounds: int) -> tuple[dict[str, Summary], dict[str, Summary]]:
    """New tokens a second, by the clock and by the processor's time."""
    cpu: dict[str, list[float]] = {name: [] for name in _SHARES}

    def run(name: str) -> float:
        tokens_s, tokens_cpu_s = _tokens_s(ours, _SHARES[name])
        cpu[name].append(tokens_cpu_s)
        return tokens_s

    values = turns.run({name: Entry(partial(run, name), rounds) for name in _SHARES})
    counted = {name: each[1:] for name, each in cpu.items()}  # the first is the warm-up
    return _summaries(values), _summaries(counted)


def _summaries(values: Mapping[str, list[float]]) -> dict[str, Summary]:
    return {name: turns.summarize(each) for name, each in values.items()}


def _tokens_s(ours: Ours, every: int) -> tuple[float, float]:
    """New tokens of one whole run, by its seconds and by those of the processor."""
    engine = ContinuousBatch(
        ours.runner, ResidentAdapters(), Scheduler(max_batch=len(ours.workload.prompts)), grammars=ours.grammars
    )
    rows = [_row(ours, index, every) for index in range(len(ours.workload.prompts))]
    for row in rows:
        assert ours.grammars is not None
        while not ours.grammars.ready(row):  # as adapters are in their slots
            time.sleep(0.001)
    began_s, began_cpu_s = time.perf_counter(), time.process_time()
    for row in rows:
        engine.add(row)
    _run(engine)
    took_s, took_cpu_s = time.perf_counter() - began_s, time.process_time() - began_cpu_s
    assert {ours.workload.new_tokens} == {len(row.output_ids) for row in rows}, "a row ended early"
    drawn = sum(len(row.output_ids) for row in rows)
    return drawn / took_s, drawn / took_cpu_s


def _row(ours: Ours, index: int, every: int) -> Sequence:
    row = ours.sequence(index, len(ours.workload.adapters))
    if every and index % every == 0:
        row.grammar = of_schema({"type": "array", "items": ITEMS[index // every % len(ITEMS)], "minItems": 1000})
    return row


def _run(engine: ContinuousBatch) -> None:
    while engine.has_work:
        for update in engine.step():
            if update.error is not None:
                raise update.error


def _grammar_times(tokens: LLTokenizer) -> dict[str, Any]:
    """Milliseconds of one thread's own time: to compile each of the two hundred schemas, and for each mask of a walk
    through it."""
    compile_s: list[float] = []
    mask_s: list[float] = []
    for schema in SCHEMAS.values():
        began_s = time.thread_time()
        matcher = compiled(tokens, of_schema(schema))
        compile_s.append(time.thread_time() - began_s)
        mask_s += _walk(matcher)
    return {"schemas": len(SCHEMAS), "compile_ms": _spread(compile_s), "mask_of_one_row_ms": _spread(mask_s)}


def _walk(matcher: LLMatcher) -> Iterator[float]:
    rng = np.random.default_rng(1)
    for _ in range(40):
        began_s = time.thread_time()
        mask = matcher.compute_bitmask()
        yield time.thread_time() - began_s
        allowed = np.flatnonzero(np.unpackbits(np.frombuffer(mask, np.uint8), bitorder="little"))
        if matcher.is_stopped() or not len(allowed):
            return
        matcher.consume_token(int(rng.choice(allowed)))


def _hostile(ours: Ours, timed: TimedGrammars, fast: str) -> dict[str, Any]:
    """Steps of rows that are free, while a row joins them again and again: first a free one, then hostile ones, of
    which those come through that their judge lets through. Milliseconds, by the clock and by the processor's time."""
    served = list(_served(GrammarJudge(lambda: {"fast": fast, "eos_ids": [0, 2]})))
    calm = [step for _ in range(4) for step in _steps_beside(ours, None)]
    timed.took_s.clear()
    steps = {name: _steps_beside(ours, grammar) for name, grammar in served}
    return {
        "forms": len(HOSTILE),
        "refused": len(HOSTILE) - len(served),
        "beside_a_free_row_ms": _longest({"free": calm}),
        "beside_a_hostile_row_ms": _longest(steps),
        "mask_call_ms": _spread(timed.took_s),
        f"mask_call_of_{CROWD}_rows_ms": _crowds(vocabulary(fast, [0, 2]), dict(served)),
    }


def _crowds(tokens: LLTokenizer, served: Mapping[str, str]) -> dict[str, Any]:
    """The longest call that makes the masks of a step whose rows are all held to the same hostile form."""
    timed = TimedGrammars(tokens)
    longest: list[tuple[float, str]] = []
    for name, grammar in served.items():
        timed.took_s.clear()
        matcher = compiled(tokens, grammar)
        rows = [Held(matcher.deep_copy()) for _ in range(CROWD)]
        chance = Random(1)
        for _ in range(WALK):
            rows = [row for row in _drawn(timed, rows, chance) if not row.matcher.is_stopped()]
        longest.append((1000 * max(timed.took_s), name))
    most, name = max(longest)
    return {"longest": most, "longest_of": name}


def _drawn(grammars: Grammars, rows: list[Held], chance: Random) -> list[Held]:
    """The rows that go on, each by a token that its mask allows."""
    masks = grammars.masks(rows)
    if masks is None:
        return []
    going = []
    for at, bits in zip(masks.at, masks.bits, strict=True):
        allowed = np.flatnonzero(np.unpackbits(bits.view(np.uint8), bitorder="little"))
        if at not in masks.refused and len(allowed):
            rows[at].matcher.consume_token(int(allowed[chance.randrange(len(allowed))]))
            going.append(rows[at])
    return going


def _longest(steps: Mapping[str, list[Step]]) -> dict[str, Any]:
    """Of all these: the longest and whose it is, and the median."""
    every = [(step, name) for name, each in steps.items() for step in each]
    clock, cpu = max(every), max(every, key=lambda step: step[0].cpu_ms)
    return {
        "longest": clock[0].ms,
        "longest_of": clock[1],
        "longest_by_cpu": cpu[0].cpu_ms,
        "longest_by_cpu_of": cpu[1],
        "median": median(step.ms for step, _ in every),
        "median_by_cpu": median(step.cpu_ms for step, _ in every),
    }


def _served(judge: GrammarJudge) -> Iterator[tuple[str, str]]:
    for name, fields in HOSTILE.items():
        try:
            grammar = grammar_of(ResponseFormat.of(fields) or ResponseFormat(kind="json_object"))
            judge.judge(grammar)
        except InvalidRequest:
            continue
        yield name, grammar


def _steps_beside(ours: Ours, grammar: str | None) -> list[Step]:
    """Each step from the joining of a row to its end."""
    engine = ContinuousBatch(ours.runner, ResidentAdapters(), Scheduler(max_batch=ROWS + 1), grammars=ours.grammars)
    free = [ours.sequence(index, len(ours.workload.adapters)) for index in range(ROWS)]
    for row in free:
        engine.add(row)
    for _ in range(3):
        engine.step()
    params = Sampling(32, seed=1, temperature=1.0, eos_ids=(0, 2))
    engine.add(Sequence("joins", BASE_REF, [1, 2, 3], params, grammar=grammar))
    steps: list[Step] = []
    while not any(update.seq_id == "joins" and update.is_last for update in _timed_step(engine, steps)):
        assert engine.has_work
    for row in free:
        engine.abort(row.seq_id)
    return steps


def _timed_step(engine: ContinuousBatch, steps: list[Step]) -> list[Update]:
    began_s, began_cpu_s = time.perf_counter(), time.process_time()
    updates = engine.step()
    ms, cpu_ms = 1000 * (time.perf_counter() - began_s), 1000 * (time.process_time() - began_cpu_s)
    steps.append(Step(ms, cpu_ms))
    return updates


def _spread(values_s: list[float]) -> dict[str, float]:
    """Milliseconds."""
    if len(values_s) < 2:
        return {}
    percent = quantiles(values_s, n=100)
    return {"p50": 1000 * percent[49], "p99": 1000 * percent[98], "longest": 1000 * max(values_s)}


def _print(report: dict[str, Any], out: Path) -> None:
    for name, spread in report["tokens_s"].items():
        by_cpu = report["tokens_per_cpu_s"][name]["median"]
        low, high = spread["low"], spread["high"]
        console.print(f"{name} {spread['median']:,.0f} tokens/s ({low:,.0f}–{high:,.0f}), {by_cpu:,.0f} a CPU second")
    for name in ("held_over_free", "held_over_free_by_cpu", "half_over_free_by_cpu"):
        console.print(f"{name}: {report[name]:.1%}")
    hostile = report["hostile"]
    for name, told in [*report.items(), *((f"hostile {name}", told) for name, told in hostile.items())]:
        if name.endswith("_ms"):
            said = (f"{key} {value:.2f}" if isinstance(value, float) else f"({value})" for key, value in told.items())
            console.print(f"{name}: {', '.join(said)}")
    console.print(f"hostile: {hostile['refused']} of {hostile['forms']} refused; written to {out}")


if __name__ == "__main__":
    typer.run(main)
