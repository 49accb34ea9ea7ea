"""PoolConnection: what one process opens to one pool, once: the server, reads that may block, keys and scripts.

The composition root of a process builds it and hands it to every part; no part opens one of its own. Knows how these
belong together, and nothing of what is asked.
"""

from __future__ import annotations

from dataclasses import dataclass

from redis.asyncio import Redis

from lorapool.shared.job import check_name
from lorapool.shared.scripts import Scripts
from lorapool.shared.server.keys import Keys, PoolKeys
from lorapool.shared.server.server import Server
from lorapool.shared.server.terms import Terms


@dataclass(frozen=True, slots=True)
class Partition:
    """One partition of a pool, as the queue and the counters ask it. ``blocking``: the same server, for reads that
    wait."""

    keys: Keys
    server: Server
    blocking: Server
    scripts: Scripts


class PoolConnection:
    """Owns the client that it is given. ``clock`` names a key that tests set the time with; None is the server's."""

    def __init__(self, redis: Redis, pool: str, *, terms: Terms | None = None, clock: str | None = None) -> None:
        self.pool, self.keys = check_name("pool", pool), PoolKeys(pool)
        self.server = Server(redis)
        self._blocking = self.server.for_blocking()
        self._redis, self._terms, self._clock = redis, terms or Terms(), clock
        self.scripts = self._scripts(self.keys.prefix)
        self._partitions: dict[int, Partition] = {}

    def partition(self, number: int = 0) -> Partition:
        """The same object for the same number."""
        if number not in self._partitions:
            keys = Keys(self.pool, number)
            self._partitions[number] = Partition(keys, self.server, self._blocking, self._scripts(keys.prefix))
        return self._partitions[number]

    async def aclose(self) -> None:
        """Close every connection; harmless to repeat."""
        await self._blocking.aclose()
        await self._redis.aclose()

    def _scripts(self, prefix: str) -> Scripts:
        return Scripts(self.server, prefix, self._terms, self._clock)
