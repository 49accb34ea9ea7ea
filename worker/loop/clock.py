"""The Redis server's clock, carried between round trips by the local monotonic one.

Every view brings the server's time; leases, deadlines and first-token times are compared on that clock only, so
that a worker whose wall clock is wrong by an hour still settles right times.
"""

from __future__ import annotations

import time
from collections.abc import Callable


class ServerClock:
    """``now_ms`` is the server's time as of the newest observation, plus what has passed here since."""

    def __init__(self, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._monotonic = monotonic
        self._offset_ms = 0.0

    def observe(self, server_ms: int) -> None:
        self._offset_ms = server_ms - self._monotonic() * 1000

    def now_ms(self) -> int:
        return round(self._offset_ms + self._monotonic() * 1000)
