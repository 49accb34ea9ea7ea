"""Machine: how much of its processors others take meanwhile, so that ceilings on time know how busy it is.

What a test and its own processes take does not count: a fault must not excuse itself.
"""

from __future__ import annotations

import time
from contextlib import suppress

import psutil

MOST_OF_IT = 2 / 3  # that others are believed to take: nobody gets less than a fair share


class Meanwhile:
    """From when it is made."""

    def __init__(self) -> None:
        self._began_s, self._others_s = time.monotonic(), _others_s()

    def slowdown(self) -> float:
        """How many times as long as on a machine of one's own things may take: 1 where nobody else computes, 3 at
        most."""
        processors_s = (time.monotonic() - self._began_s) * (psutil.cpu_count() or 1)
        share = (_others_s() - self._others_s) / processors_s if processors_s else 0.0
        return 1 / (1 - min(max(share, 0.0), MOST_OF_IT))


def _others_s() -> float:
    """Seconds that processes took which this one has not started."""
    times = psutil.cpu_times()
    busy_s = sum(times) - times.idle - getattr(times, "iowait", 0.0) - getattr(times, "guest", 0.0)
    return float(busy_s) - _ours_s()


def _ours_s() -> float:
    taken_s = 0.0
    for process in (psutil.Process(), *psutil.Process().children(recursive=True)):
        with suppress(psutil.Error):
            taken_s += sum(process.cpu_times()[:4])  # its own, and of its children that have ended
    return taken_s
