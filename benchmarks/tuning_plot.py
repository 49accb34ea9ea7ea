"""The tuning curves as one picture: batch to the left, slots to the right. matplotlib is imported only here."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib import pyplot as plt
from matplotlib.axes import Axes

mpl.use("Agg")
SPEED, OTHER = "#2c3e50", "#c0392b"


def draw(sweeps: dict[str, Any], path: Path) -> None:
    """Two curves a sweep: new tokens a second, and what it costs or saves."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(10, 3.8), layout="constrained")
    if "batch" in sweeps:
        _curves(
            left, sweeps["batch"]["points"], "--max-batch (rows of one step)", "ms_per_token_p50", "ms a token, median"
        )
    if "slots" in sweeps:
        _curves(right, sweeps["slots"]["points"], "--slots (adapters on the device)", "loads", "adapter loads")
    figure.savefig(path, dpi=120)
    plt.close(figure)


def _curves(axis: Axes, points: list[dict[str, float]], what: str, other: str, label: str) -> None:
    values = [point["value"] for point in points]
    axis.plot(values, [point["tokens_per_s"] for point in points], "o-", color=SPEED)
    axis.set(xscale="log", xlabel=what, ylim=(0, None))
    axis.set_xticks(values, [f"{value:.0f}" for value in values])
    axis.minorticks_off()
    axis.set_ylabel("new tokens/s, all requests", color=SPEED)
    beside = axis.twinx()
    beside.plot(values, [point[other] for point in points], "s--", color=OTHER)
    beside.set_ylim(0, None)
    beside.set_ylabel(label, color=OTHER)
