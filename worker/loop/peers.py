"""Peers: who else takes jobs, read when a heartbeat's answer says that it changed, and not more often than is worth it.

Homes of adapters follow from it, which are a hint: in a fleet of a thousand, one comes or goes all the time, and a
thousand that each asked at once would be the load that presence must not be.
"""

from __future__ import annotations

import random
import time
from collections.abc import Awaitable, Callable, Sequence

BEATS_BETWEEN = (3.0, 7.0)  # of two looks, drawn anew each time, so that a fleet does not look all at once


class Peers:
    """``look`` asks for the names; ``on_change`` is told them."""

    def __init__(
        self,
        look: Callable[[], Awaitable[Sequence[str]]],
        on_change: Callable[[Sequence[str]], None],
        *,
        every_s: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._look, self._on_change, self._every_s, self._clock = look, on_change, every_s, clock
        self._mark = ""
        self.count = 0  # as last read
        self._not_before = float("-inf")

    async def heed(self, mark: str) -> None:
        """The answer of a beat: another mark than the last time means other peers."""
        if mark == self._mark or self._clock() < self._not_before:
            return
        names = await self._look()
        self._mark, self.count = mark, len(names)
        self._not_before = self._clock() + self._every_s * random.uniform(*BEATS_BETWEEN)  # noqa: S311 - jitter
        self._on_change(names)
