"""How fast is the engine? Workload W on ours, on PEFT's mixed batch, and the bare matrix products, in one run.

``python -m benchmarks.engine --out FILE.json``; with ``--peers`` also vLLM on the CPU, polylora, PEFT one adapter after
another and transformers, and a plot. Contestants take turns, so that a noisy machine disturbs all alike; figures are
medians of the rounds, in new tokens a second, prefill and sampling included. ``--resume`` adds what FILE lacks.
"""

from __future__ import annotations

import json
import logging
import tempfile
import warnings
from contextlib import closing
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import torch
import transformers
import typer
from rich.console import Console
from rich.table import Table

from benchmarks import hardware, rounds
from benchmarks.engine_plot import plot
from benchmarks.lineup import CURVE, Lineup, Options
from benchmarks.rounds import Summary
from benchmarks.workload import Workload, build
from examples.base_model import prepare

console = Console()


def main(
    out: Annotated[Path, typer.Option(help="Where the JSON goes.")],
    requests: Annotated[int, typer.Option(min=1, help="Requests in the batch.")] = 64,
    new_tokens: Annotated[int, typer.Option(min=2, help="Tokens drawn for each request.")] = 64,
    adapters: Annotated[int, typer.Option(min=2, help="Adapters in the mixed batch.")] = 16,
    rank: Annotated[int, typer.Option(min=1, help="Rank of each adapter.")] = 16,
    dtype: Annotated[str, typer.Option(help="Our dtype, and the limit's: bfloat16 or float32.")] = "bfloat16",
    rounds: Annotated[int, typer.Option(min=1, help="Counted rounds, after one warm-up.")] = 5,
    peers: Annotated[
        bool, typer.Option("--peers", help="Also the peers that need a process or venv of their own.")
    ] = False,
    only: Annotated[list[str] | None, typer.Option(help="Only names that begin so, such as ours; repeatable.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Keep the rounds in FILE, run those it lacks.")] = False,
    budget: Annotated[float, typer.Option(help="Stop after so many seconds; --resume goes on.")] = float("inf"),
    image: Annotated[Path | None, typer.Option(help="Where the plot goes.")] = None,
) -> None:
    """Measure, print a table, write the JSON."""
    options = Options(requests, new_tokens, adapters, rank, dtype, rounds, peers)
    before: dict[str, Any] = json.loads(out.read_text()) if resume and out.exists() else {}
    quiet()
    with tempfile.TemporaryDirectory() as scratch:
        with console.status("making the workload"):
            workload = build_workload(options, Path(scratch))
        report = measure(options, workload, Path(scratch), out, before, tuple(only or ("",)), budget)
    console.print(table(report))
    console.print(f"written to {out}")
    if image is not None:
        plot(report, image)
        console.print(f"plotted to {image}")


def quiet() -> None:
    """Keep the peers' own bars and deprecations off the screen."""
    logging.getLogger("transformers").setLevel(logging.ERROR)
    transformers.utils.logging.disable_progress_bar()
    warnings.simplefilter("ignore", FutureWarning)


def build_workload(options: Options, scratch: Path) -> Workload:
    """Workload W at the sizes asked for."""
    return build(
        prepare(),
        scratch,
        requests=options.requests,
        new_tokens=options.new_tokens,
        adapters=max(options.adapters, *CURVE) if options.peers else options.adapters,
        rank=options.rank,
    )


def measure(
    options: Options,
    workload: Workload,
    scratch: Path,
    out: Path,
    before: dict[str, Any] | None = None,
    only: tuple[str, ...] = ("",),
    budget_s: float = float("inf"),
) -> dict[str, Any]:
    """Run all contestants in turn; return what the JSON ``out`` holds, which is written after each turn: an hour's
    rounds outlive a peer that dies. ``before``: an earlier report to go on from."""
    seen = {name: list(spread["values"]) for name, spread in (before or {}).get("spread", {}).items()}
    lineup = Lineup(workload, options, scratch, (before or {}).get("peft_mixed_dtype"))
    entries = {name: entry for name, entry in lineup.entries().items() if name.startswith(only)}

    def report(values: dict[str, list[float]]) -> dict[str, Any]:
        figures = _report(options, workload, lineup, seen | values, (before or {}).get("same_tokens_as_peft"))
        out.write_text(json.dumps(figures, indent=2) + "\n")
        return figures

    with closing(lineup):
        return report(rounds.run(entries, seen, budget_s, report))


def _report(
    options: Options, workload: Workload, lineup: Lineup, seen: dict[str, list[float]], same: float | None
) -> dict[str, Any]:
    summaries = {name: rounds.summarize(values) for name, values in seen.items() if values}
    facts = {
        "peft_mixed_dtype": lineup.peft_dtype,
        "same_tokens_as_peft": _same(lineup.answers) or same,
        "workload": {**asdict(options), "prompt_tokens": workload.prompt_tokens, "threads": torch.get_num_threads()},
        "hardware": hardware.describe(),
    }
    return {**_figures(summaries), **facts}


def _same(answers: dict[str, list[list[int]]]) -> float | None:
    """Share of requests whose every token is equal (dtypes may differ, so this is a hint, not the parity test)."""
    if answers.keys() < {"ours", "peft_mixed"}:
        return None
    pairs = list(zip(answers["ours"], answers["peft_mixed"], strict=True))
    return sum(a == b for a, b in pairs) / len(pairs)


def _figures(seen: dict[str, Summary]) -> dict[str, Any]:
    """Every median under its contestant, the ratios that the targets name, and the rounds themselves."""
    medians = {name: summary.median for name, summary in seen.items()}
    peers: dict[str, dict[str, float]] = {}
    for name, value in medians.items():
        who, _, what = name.partition(".")
        if what:
            peers.setdefault(who, {})[f"{what}_tok_s"] = value
    ours = peers.pop("ours", {})
    wanted = {
        "many_over_vllm_cpu": ("ours.many", "vllm_cpu.many"),
        "many_over_peft_mixed": ("ours.many", "peft_mixed.many"),
        "base_over_limit": ("ours.base", "limit"),
        "many_over_limit": ("ours.many", "limit"),
        "many_over_base": ("ours.many", "ours.base"),
        "one_over_base": ("ours.one", "ours.base"),
    }
    ratios = {name: medians[a] / medians[b] for name, (a, b) in wanted.items() if {a, b} <= medians.keys()}
    spread = {name: asdict(summary) for name, summary in seen.items()}
    return {"ours": ours, "peers": peers, "limit_tok_s": medians.get("limit"), "ratios": ratios, "spread": spread}


def table(report: dict[str, Any]) -> Table:
    """What a person reads."""
    size, limit = report["workload"], report["limit_tok_s"]
    title = f"{size['requests']} requests × {size['new_tokens']} new tokens, {size['dtype']}, {size['threads']} threads"
    view = Table("", "tokens/s", "low to high", "rounds", "of the limit", title=title)
    for name, spread in report["spread"].items():
        share = f"{spread['median'] / limit:.0%}" if limit else ""
        low_to_high = f"{spread['low']:,.0f} to {spread['high']:,.0f}"
        view.add_row(name, f"{spread['median']:,.0f}", low_to_high, str(len(spread["values"])), share)
    ratios = ", ".join(f"{name.replace('_', ' ')} {value:.2f}" for name, value in report["ratios"].items())
    view.caption = f"{size['adapters']} adapters of rank {size['rank']}; PEFT in {report['peft_mixed_dtype']}; {ratios}"
    return view


if __name__ == "__main__":
    typer.run(main)
