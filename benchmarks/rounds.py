"""Interleaved rounds: every contestant once a round, in turn, so that a noisy machine disturbs all alike.

Knows nothing of what a contestant does; it returns a figure, and the summary is the median with its spread.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from statistics import median

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

Contestant = Callable[[], float]


@dataclass(frozen=True)
class Summary:
    """Median and extremes of one contestant's figure over the rounds."""

    median: float
    low: float
    high: float
    values: tuple[float, ...]

    def __str__(self) -> str:
        return f"{self.median:,.0f} ({self.low:,.0f}–{self.high:,.0f})"


def run(contestants: Mapping[str, Contestant], rounds: int) -> dict[str, Summary]:
    """One uncounted warm-up each, then ``rounds`` rounds in turn."""
    values: dict[str, list[float]] = {name: [] for name in contestants}
    columns = (TextColumn("{task.description:<28}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns) as progress:
        task = progress.add_task("", total=len(contestants) * (rounds + 1))
        for turn in range(rounds + 1):
            for name, contestant in contestants.items():
                progress.update(task, description=f"{'warm-up' if turn == 0 else f'round {turn}'}: {name}")
                value = contestant()
                if turn:
                    values[name].append(value)
                progress.advance(task)
    return {name: summarize(seen) for name, seen in values.items()}


def summarize(values: list[float]) -> Summary:
    """Median and extremes of ``values``."""
    return Summary(median(values), min(values), max(values), tuple(values))
