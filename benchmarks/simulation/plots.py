"""Pictures of the study, for docs/benchmarks.md; matplotlib is imported only here."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib import pyplot as plt
from matplotlib.axes import Axes

STYLES = {
    "affinity": ("#c0392b", "o", "affinity (ours)"),
    "arrival": ("#2c3e50", "s", "order of arrival"),
    "random": ("#95a5a6", "^", "random"),
    "pure": ("#e67e22", "v", "affinity without a bound"),
}

mpl.use("Agg")


def draw(study: dict[str, Any], folder: Path) -> list[Path]:
    """Write the pictures and say where."""
    folder.mkdir(parents=True, exist_ok=True)
    pictures = [_policies(study["comparison"], folder)]
    return [*pictures, _defaults(study["sweep"], folder)] if study["sweep"] else pictures


def _policies(comparison: dict[str, Any], folder: Path) -> Path:
    figure, rows = plt.subplots(len(comparison), 3, figsize=(11, 3.1 * len(comparison)), squeeze=False)
    measures = (("loads_per_job", "adapter loads per job"), ("p99_wait_s", "p99 wait, s"))
    for axes, (scale, by_load) in zip(rows, comparison.items(), strict=True):
        for axis, (measure, label) in zip(
            axes, (*measures, ("longest_backlogged_s", "longest wait of a next job, s")), strict=True
        ):
            _lines(axis, by_load, measure)
            axis.set(xlabel="load", ylabel=label, ylim=(0, None))
        axes[0].set_title(scale, loc="left", fontsize=10)
    handles, labels = rows[0][0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="lower center", ncols=len(handles), frameon=False, fontsize=9)
    figure.tight_layout(rect=(0, 0.13 / len(comparison), 1, 1))
    return _save(figure, folder / "affinity-policies.png")


def _lines(axis: Axes, by_load: dict[str, Any], measure: str) -> None:
    loads = [float(load) for load in by_load]
    for name, (color, marker, label) in STYLES.items():
        values = [row[name][measure] for row in by_load.values()]
        axis.plot(loads, values, color=color, marker=marker, markersize=4, label=label, linewidth=1.4)
    axis.grid(alpha=0.25)


def _defaults(sweep: dict[str, Any], folder: Path) -> Path:
    figure, axes = plt.subplots(1, 2, figsize=(9, 3.4))
    for axis, (measure, label) in zip(
        axes, (("loads_per_job", "adapter loads per job"), ("p99_wait_s", "p99 wait, s")), strict=True
    ):
        for share in sorted({point["lead_share"] for point in sweep["points"]}):
            points = [point for point in sweep["points"] if point["lead_share"] == share]
            bounds = [point["bound_s"] for point in points]
            axis.plot(bounds, [point[measure] for point in points], marker="o", markersize=4, label=f"{share:g}")
        axis.set(xlabel="starvation bound, s", ylabel=label, ylim=(0, None), xscale="log")
        ticks = sorted({point["bound_s"] for point in sweep["points"]})
        axis.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
        axis.minorticks_off()
        axis.grid(alpha=0.25)
    axes[0].legend(title="lead, of the longest wait", frameon=False, fontsize=9)
    figure.suptitle(f"{sweep['scale']}, load {sweep['load']:g}", fontsize=10)
    figure.tight_layout()
    return _save(figure, folder / "affinity-defaults.png")


def _save(figure: Any, path: Path) -> Path:
    figure.savefig(path, dpi=130)
    plt.close(figure)
    return path
