"""ChoreBook: what the maintenance workers of a pool have done, when, and what they found; plain hashes.

Makes sure that a chore is done once a tick, however many workers would. Knows neither what a chore does nor arq.
All methods raise RedisUnreachable, RedisAuthFailed or RedisFull.
"""

from __future__ import annotations

from collections.abc import Mapping

from lorapool.shared.connection import PoolConnection
from lorapool.shared.malformed import readable, text_map
from lorapool.shared.scripts import records
from lorapool.shared.server.server import Arg

DIGEST_TTL_MS = 7 * 86_400_000


class ChoreBook:
    """The book of one pool."""

    def __init__(self, connection: PoolConnection) -> None:
        self._server, self._keys, self._scripts = connection.server, connection.keys, connection.scripts

    async def now_ms(self) -> int:
        """The server's clock, which all ticks are of."""
        return await self._server.now_ms()

    async def begin(self, chore: str, tick_ms: int, worker: str) -> bool:
        """Whether that tick's chore is this worker's to do: nobody has begun it, nor that of a later tick, and none is
        under way (for 15 s at most: who began it may have died). A tick that the server's clock has not reached is
        nobody's."""
        return bool(
            await self._scripts.run("chore_begin", *records.ChoreBegin(chore=chore, tick_ms=tick_ms, worker=worker))
        )

    async def end(self, chore: str, facts: Mapping[str, Arg]) -> None:
        """It is done; write what it did, under the chore's name."""
        fields = [arg for name, value in facts.items() for arg in (f"{chore}.{name}", value)]
        await self._server.command("HSET", self._keys.chores, f"{chore}.busy_until_ms", 0, *fields)

    async def read(self) -> dict[str, str]:
        """``<chore>.<field>`` of each chore's latest tick."""
        return text_map(await self._server.command("HGETALL", self._keys.chores))

    async def recall(self, field: str) -> str:
        """One field; empty if it was never written."""
        value = await self._server.command("HGET", self._keys.chores, field)
        return value.decode(errors="replace") if value else ""

    async def write_dead(self, digest: Mapping[str, Arg]) -> None:
        """The digest of dead letters, whole, in place of the one before."""
        fields = [arg for pair in digest.items() for arg in pair]
        await self._scripts.run("replace", *records.Replace(key=self._keys.dead, ttl_ms=DIGEST_TTL_MS), *fields)

    async def see(self, alive: list[str]) -> list[str]:
        """Note who lives; returns those noted before who do not live any more."""
        return readable("name of a worker", await self._scripts.run("chore_see", *alive), bytes.decode)

    async def forget(self, worker: str) -> None:
        """That worker's remains are gone."""
        await self._server.command("ZREM", self._keys.seen, worker)
