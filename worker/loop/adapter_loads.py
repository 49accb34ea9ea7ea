"""AdapterLoads: tells the pool how often this worker brought each adapter into a device slot, each time counted once.

A report that may not have arrived is sent again as it was, under the same name, before there is a new one. Knows no
adapters but by ref; what it reports are differences of the engine's own counts.
"""

from __future__ import annotations

import secrets
from collections import Counter
from collections.abc import Mapping

from lorapool.shared.fleet.counters import Counters


class AdapterLoads:
    """One worker's, from its start to its end."""

    def __init__(self, counters: Counters, worker: str) -> None:
        self._counters, self._worker, self._boot = counters, worker, secrets.token_hex(6)
        self._sent: Counter[str] = Counter()
        self._sending: Counter[str] = Counter()
        self._number = 0

    async def send(self, loaded: Mapping[str, int]) -> None:
        """Report what came since the last time; nothing new, no round trip. Raises what ``Counters`` raises."""
        self._sending = self._sending or Counter(loaded) - self._sent
        if not self._sending:
            return
        await self._counters.add_loads(self._worker, f"{self._boot}-{self._number}", self._sending)
        self._sent += self._sending
        self._sending, self._number = Counter(), self._number + 1
