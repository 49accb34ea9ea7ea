"""Counters: what many adapters counted, asked for together, in parts that keep no event loop and no server long.

Those of one adapter or agent are the broker's ``stats`` and ``agent_stats``. Counts nothing itself.
"""

from __future__ import annotations

from collections.abc import Sequence

from lorapool.shared.malformed import number
from lorapool.shared.queue.replies import numbers
from lorapool.shared.scripts import Scripts
from lorapool.shared.server.connection import PIPELINED, Server
from lorapool.shared.server.keys import Keys


class Counters:
    """``broker.counters``."""

    def __init__(self, server: Server, scripts: Scripts, keys: Keys) -> None:
        self._server, self._scripts, self._keys = server, scripts, keys

    async def of_each(self, refs: Sequence[str]) -> list[dict[str, int | float]]:
        """As the broker's ``stats`` for each."""
        found: list[dict[str, int | float]] = []
        for start in range(0, len(refs), PIPELINED):
            part = refs[start : start + PIPELINED]
            stored = await self._server.pipeline([("HGETALL", self._keys.stats(ref)) for ref in part])
            found += map(numbers, stored)
        return found

    async def of_all(self, refs: Sequence[str]) -> dict[str, int | float]:
        """The sum over all of these, added up by the server: one call for 256."""
        sums: dict[str, int | float] = {}
        for start in range(0, len(refs), PIPELINED):
            part = numbers(await self._scripts.run("totals", *refs[start : start + PIPELINED]))
            sums |= {name: sums.get(name, 0) + value for name, value in part.items()}
        return sums

    async def claimed_ms(self, refs: Sequence[str]) -> list[int | None]:
        """When each of these adapters was last claimed from, None for never."""
        found = await self._server.pipeline([("HGET", self._keys.adapter(ref), "claimed_ms") for ref in refs])
        return [int(number(value)) or None for value in found]
