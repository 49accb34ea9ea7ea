"""Pulse: how a pool did, minute by minute: what is written down of a minute, and the series that follow. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from lorapool.producer.console.figures import share
from lorapool.shared.fleet.history import Minute
from lorapool.shared.queue.onlooker import Glance, SeenJob

COUNTED = (
    *("submitted", "succeeded", "failed", "cancelled", "expired", "retried", "reaped", "dead"),
    *("prompt_tokens", "completion_tokens", "slot_hits", "slot_misses", "queued_ms", "total_ms"),
)
_ENDS = ("succeeded", "failed", "cancelled", "expired")
_GAP_MS = 150_000  # a longer silence is no minute: nobody was there to count


def noted(totals: Mapping[str, float], glance: Glance, sample: Sequence[SeenJob], workers: int) -> dict[str, float]:
    """What is worth writing down: counters, gauges, and of how long jobs that run now had waited the quantiles.

    The counters know a mean wait alone; which jobs ended is listed nowhere. Those that run are a fair sample of waits,
    since how long a job runs and how long it waited have little to do with each other.
    """
    waits = sorted(job.waited_ms for job in sample if job.started_ms)
    gauges = {"waiting": glance.waiting, "running": glance.running, "workers": workers}
    quantiles = {"wait_p50_ms": quantile(waits, 0.5), "wait_p95_ms": quantile(waits, 0.95)}
    known = {name: value for name, value in quantiles.items() if value is not None}
    oldest = {} if glance.oldest_wait_ms is None else {"oldest_wait_ms": glance.oldest_wait_ms}
    return {name: totals.get(name, 0) for name in COUNTED} | gauges | known | oldest


def quantile(ordered: Sequence[float], q: float) -> float | None:
    """The value that a share ``q`` of them does not exceed; None of none."""
    return ordered[min(len(ordered) - 1, int(q * len(ordered)))] if ordered else None


@dataclass(frozen=True, slots=True)
class Beat:
    """One minute: rates between two looks, gauges at the second. None where nothing says."""

    at_ms: int
    jobs_per_s: float
    tokens_per_s: float
    errors: float  # jobs that failed or expired, a minute
    hit_rate: float | None
    wait_mean_ms: float | None
    wait_p50_ms: float | None
    wait_p95_ms: float | None
    waiting: float
    running: float


def beats(minutes: Sequence[Minute]) -> list[Beat]:
    """One for each two neighbours."""
    return [_beat(*pair) for pair in pairwise(minutes) if 0 < pair[1].at_ms - pair[0].at_ms <= _GAP_MS]


def _beat(before: Minute, after: Minute) -> Beat:
    grown = {name: max(0.0, after.totals.get(name, 0) - before.totals.get(name, 0)) for name in COUNTED}
    seconds = (after.at_ms - before.at_ms) / 1000
    settled = grown["slot_hits"] + grown["slot_misses"]
    return Beat(
        at_ms=after.at_ms,
        jobs_per_s=sum(grown[name] for name in _ENDS) / seconds,
        tokens_per_s=grown["completion_tokens"] / seconds,
        errors=60 * (grown["failed"] + grown["expired"]) / seconds,
        hit_rate=share(grown["slot_hits"], settled),
        wait_mean_ms=share(grown["queued_ms"], settled),
        wait_p50_ms=after.totals.get("wait_p50_ms"),
        wait_p95_ms=after.totals.get("wait_p95_ms"),
        waiting=after.totals.get("waiting", 0),
        running=after.totals.get("running", 0),
    )


@dataclass(frozen=True, slots=True)
class Chart:
    """``lines``: (name, values) over ``times_s``; a value of None is a gap. ``latest``: as text, the number to read."""

    title: str
    unit: str
    latest: str
    note: str
    times_s: Sequence[float]
    lines: Sequence[tuple[str, Sequence[float | None]]]

    @property
    def data(self) -> dict[str, object]:
        """What the browser draws."""
        drawn = [[None if value is None else round(value, 3) for value in values] for _, values in self.lines]
        return {"unit": self.unit, "names": [name for name, _ in self.lines], "data": [list(self.times_s), *drawn]}

    @property
    def told(self) -> str:
        """The same for those who do not see it."""
        known = [value for _, values in self.lines for value in values if value is not None]
        if not known:
            return f"{self.title}: nothing counted yet"
        return f"{self.title} over the last hour: {self.latest} now, {min(known):.4g} to {max(known):.4g} {self.unit}"


def series(of: Sequence[Beat], name: str) -> list[float | None]:
    """One of the beats' fields."""
    return [getattr(beat, name) for beat in of]
