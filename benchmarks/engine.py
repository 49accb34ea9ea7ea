"""How fast is the engine? Workload W on ours, on PEFT's mixed batch, and the bare matrix products, in one run.

``python -m benchmarks.engine --out FILE.json``. Contestants take turns, so that a noisy machine disturbs all alike;
figures are medians of the rounds, in new tokens a second, prefill and sampling included.
"""

from __future__ import annotations

import json
import logging
import tempfile
import warnings
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import torch
import transformers
import typer
from rich.console import Console
from rich.table import Table

from benchmarks import hardware, rounds
from benchmarks.limit import Limit
from benchmarks.ours import Ours
from benchmarks.peers.peft_mixed import PeftMixed
from benchmarks.rounds import Contestant, Summary
from benchmarks.workload import Workload, build
from examples.base_model import prepare

PEFT_DTYPES = (torch.float32, torch.bfloat16)
console = Console()


@dataclass(frozen=True)
class Options:
    """The sizes of one run; they go into the JSON as they are."""

    requests: int
    new_tokens: int
    adapters: int
    rank: int
    dtype: str
    rounds: int


def main(
    out: Annotated[Path, typer.Option(help="Where the JSON goes.")],
    requests: Annotated[int, typer.Option(min=1, help="Requests in the batch.")] = 64,
    new_tokens: Annotated[int, typer.Option(min=2, help="Tokens drawn for each request.")] = 64,
    adapters: Annotated[int, typer.Option(min=1, help="Adapters in the mixed batch.")] = 16,
    rank: Annotated[int, typer.Option(min=1, help="Rank of each adapter.")] = 16,
    dtype: Annotated[str, typer.Option(help="Our dtype, and the limit's: bfloat16 or float32.")] = "bfloat16",
    rounds: Annotated[int, typer.Option(min=1, help="Counted rounds, after one warm-up.")] = 5,
) -> None:
    """Measure, print a table, write the JSON."""
    options = Options(requests, new_tokens, adapters, rank, dtype, rounds)
    quiet()
    with tempfile.TemporaryDirectory() as scratch, console.status("making the workload"):
        report = measure(options, build_workload(options, Path(scratch)))
    out.write_text(json.dumps(report, indent=2) + "\n")
    console.print(table(report))
    console.print(f"written to {out}")


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
        adapters=options.adapters,
        rank=options.rank,
    )


def measure(options: Options, workload: Workload) -> dict[str, Any]:
    """Run all contestants in turn; return what the JSON holds."""
    ours = Ours(workload, options.dtype, options.rank)
    peft, peft_dtype = faster_peft(workload, options)
    answers: dict[str, list[list[int]]] = {}
    summaries = rounds.run(dict(_contestants(workload, options, ours, peft, answers)), options.rounds)
    return _report(options, workload, summaries, peft_dtype, _same(answers["ours"], answers["peft_mixed"]))


def faster_peft(workload: Workload, options: Options) -> tuple[PeftMixed, str]:
    """PEFT in whichever of float32 and bfloat16 runs the mixed batch faster on this machine, tried on a few tokens."""
    few = replace(workload, new_tokens=min(8, workload.new_tokens))
    seconds = {}
    for dtype in PEFT_DTYPES:
        peft = PeftMixed(few, dtype)
        seconds[dtype] = min(peft.run(options.adapters)[0] for _ in range(2))
    fastest = min(seconds, key=lambda dtype: seconds[dtype])
    return PeftMixed(workload, fastest), str(fastest).removeprefix("torch.")


def _contestants(
    workload: Workload, options: Options, ours: Ours, peft: PeftMixed, answers: dict[str, list[list[int]]]
) -> Iterator[tuple[str, Contestant]]:
    """Each returns new tokens a second; the mixed runs leave their tokens in ``answers``."""
    limit = Limit(workload, getattr(torch, options.dtype))
    tokens = workload.tokens

    def mixed(name: str, contestant: Ours | PeftMixed) -> float:
        seconds, answers[name] = contestant.run(options.adapters)
        return tokens / seconds

    yield "ours.base", lambda: tokens / ours.run(0)[0]
    yield "ours.one", lambda: tokens / ours.run(1)[0]
    yield "ours.many", lambda: mixed("ours", ours)
    yield "peft_mixed.many", lambda: mixed("peft_mixed", peft)
    yield "limit", lambda: tokens / limit.run()


def _same(ours: list[list[int]], theirs: list[list[int]]) -> float:
    """Share of requests whose every token is equal (dtypes may differ, so this is a hint, not the parity test)."""
    return sum(a == b for a, b in zip(ours, theirs, strict=True)) / len(ours)


def _report(
    options: Options, workload: Workload, seen: dict[str, Summary], peft_dtype: str, same: float
) -> dict[str, Any]:
    many, limit, peft = seen["ours.many"].median, seen["limit"].median, seen["peft_mixed.many"].median
    return {
        "ours": {
            "base_tok_s": seen["ours.base"].median,
            "one_tok_s": seen["ours.one"].median,
            "many_tok_s": many,
        },
        "peers": {"peft_mixed": {"many_tok_s": peft, "dtype": peft_dtype}},
        "limit_tok_s": limit,
        "ratios": {
            "many_over_peft_mixed": many / peft,
            "base_over_limit": seen["ours.base"].median / limit,
            "many_over_limit": many / limit,
        },
        "same_tokens_as_peft": same,
        "spread": {name: asdict(summary) for name, summary in seen.items()},
        "workload": {**asdict(options), "prompt_tokens": workload.prompt_tokens, "threads": torch.get_num_threads()},
        "hardware": hardware.describe(),
    }


def table(report: dict[str, Any]) -> Table:
    """What a person reads."""
    size = report["workload"]
    title = f"{size['requests']} requests × {size['new_tokens']} new tokens, {size['dtype']}, {size['threads']} threads"
    view = Table("", "tokens/s", "low to high", "of the limit", title=title)
    for name, spread in report["spread"].items():
        share = spread["median"] / report["limit_tok_s"]
        view.add_row(name, f"{spread['median']:,.0f}", f"{spread['low']:,.0f} to {spread['high']:,.0f}", f"{share:.0%}")
    ratio, peft = report["ratios"]["many_over_peft_mixed"], report["peers"]["peft_mixed"]
    view.caption = (
        f"{size['adapters']} adapters of rank {size['rank']}: {ratio:.1f} × PEFT's mixed batch ({peft['dtype']})"
    )
    return view


if __name__ == "__main__":
    typer.run(main)
