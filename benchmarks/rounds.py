"""Interleaved rounds: every contestant once a round, in turn, so that a noisy machine disturbs all alike.

Knows nothing of what a contestant does; it returns a figure, and the summary is the median with its spread.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
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


class Failed(RuntimeError):
    """A contestant could not do its turn."""


@dataclass(frozen=True)
class Entry:
    """One contestant and the rounds it takes part in. ``warms_itself``: it needs no uncounted turn before its first."""

    run: Contestant
    rounds: int
    warms_itself: bool = False


def run(
    entries: Mapping[str, Entry],
    seen: Mapping[str, list[float]] | None = None,
    budget_s: float = float("inf"),
    after: Callable[[dict[str, list[float]]], object] = lambda _: None,
) -> dict[str, list[float]]:
    """Run what ``seen`` lacks of each entry's rounds, in turn; stop early when ``budget_s`` is spent. Who fails is left
    out from there on. ``after`` gets all values there are after each turn."""
    values = {name: list((seen or {}).get(name, ())) for name in entries}
    started, failed, until = set[str](), set[str](), time.monotonic() + budget_s
    columns = (TextColumn("{task.description:<36}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns) as progress:
        turns = list(_turns(entries, values))
        task = progress.add_task("", total=len(turns))
        for turn, name in turns:
            if time.monotonic() > until:
                break
            progress.update(task, description=f"round {turn + 1}: {name}")
            progress.advance(task)
            if name in failed:
                continue
            try:
                if name not in started and not entries[name].warms_itself:
                    entries[name].run()
                started.add(name)
                values[name].append(entries[name].run())
            except Failed as error:
                failed.add(name)
                progress.console.print(f"{name} is left out from here on: {error}", markup=False)
            after(values)
    return values


def _turns(entries: Mapping[str, Entry], values: Mapping[str, list[float]]) -> Iterator[tuple[int, str]]:
    had = {name: len(kept) for name, kept in values.items()}
    for turn in range(max(entry.rounds for entry in entries.values())):
        yield from ((turn, name) for name, entry in entries.items() if had[name] <= turn < entry.rounds)


def summarize(values: list[float]) -> Summary:
    """Median and extremes of ``values``."""
    return Summary(median(values), min(values), max(values), tuple(values))
