"""Refusals: requests that failed before they became jobs, counted so that no failure is missing from the metrics.

Counts of jobs are the workers'; these alone are a client's. They are kept in the pool, for all facades; while that
cannot be reached they wait here.
"""

from __future__ import annotations

import secrets
import threading
from collections import Counter

from lorapool.producer.client.client import Client


class Refusals:
    """Of one facade, by the error's name."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._waiting: Counter[str] = Counter()

    def add(self, name: str) -> None:
        with self._lock:
            self._waiting[name] += 1

    @property
    def waiting(self) -> Counter[str]:
        """Those that have not been reported to the pool."""
        with self._lock:
            return Counter(self._waiting)

    async def tell(self, client: Client) -> None:
        """Add what waits to the pool's count; if that fails, it waits on."""
        with self._lock:
            refusals, self._waiting = self._waiting, Counter()
        if not refusals:
            return
        try:
            await client.count_refusals(refusals, report=secrets.token_hex(8))
        except BaseException:
            with self._lock:
                self._waiting += refusals
            raise
