"""Backoff: how long to wait before trying again: longer each time, never in step with others. Pure but for chance."""

from __future__ import annotations

import random
from collections.abc import Iterator

FIRST_S, LONGEST_S = 0.05, 2.0


def backoff(first_s: float | None = None) -> Iterator[float]:
    """Pauses without end, in seconds: each twice the one before, up to two seconds, with jitter."""
    pause_s = FIRST_S if first_s is None else first_s
    while True:
        yield jittered(pause_s)
        pause_s = min(2 * pause_s, LONGEST_S)


def jittered(pause_s: float) -> float:
    """Between half of it and all of it."""
    return pause_s * random.uniform(0.5, 1.0)  # noqa: S311 - not a secret
