"""History: what a pool's totals were, minute by minute, for a day.

A stream with an entry a minute, written by whoever comes first in that minute; from two neighbours follow the rates
between them. Bounded, and gone a day after the last entry. Knows neither what is worth writing down nor what follows
from it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from lorapool.shared.connection import PoolConnection
from lorapool.shared.malformed import number, readable

MINUTE_MS = 60_000
KEPT_MINUTES = 1440


class Minute(NamedTuple):
    """``totals`` as they were at ``at_ms`` (server's clock) in the minute that began at ``minute_ms``."""

    minute_ms: int
    at_ms: int
    totals: Mapping[str, float]


class History:
    """One pool's. All methods raise RedisUnreachable, RedisAuthFailed or RedisFull."""

    def __init__(self, connection: PoolConnection) -> None:
        self._server, self._keys, self._scripts = connection.server, connection.keys, connection.scripts

    async def note(self, totals: Mapping[str, float]) -> bool:
        """Write down this minute's, unless somebody has; whether it was written now."""
        pairs = [part for name, value in totals.items() for part in (name, f"{value:.10g}")]
        return bool(await self._scripts.run("note_minute", *pairs))

    async def due(self) -> bool:
        """Whether nobody has written down this minute's yet."""
        newest = await self._last(1)
        return not newest or newest[0].minute_ms != _minute(await self._server.now_ms())

    async def minutes(self, n: int = 61) -> list[Minute]:
        """The latest ``n``, oldest first; a minute in which nobody came is left out."""
        return (await self._last(max(1, min(n, KEPT_MINUTES))))[::-1]

    async def _last(self, n: int) -> list[Minute]:
        entries = await self._server.command("XREVRANGE", self._keys.history, "+", "-", "COUNT", n)
        return readable("minute of a pool's history", entries, _read)


def _minute(at_ms: int) -> int:
    return at_ms - at_ms % MINUTE_MS


def _read(entry: tuple[bytes, Mapping[bytes, bytes]]) -> Minute:
    entry_id, fields = entry
    totals: dict[str, Any] = {name.decode(): number(value) for name, value in fields.items()}
    at_ms = int(totals.pop("at_ms"))
    return Minute(int(entry_id.partition(b"-")[0]), at_ms, totals)
