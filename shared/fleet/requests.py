"""WorkerRequests: what others ask of a worker, by its control stream: to look at an adapter, to load one.

A request is a hint that makes things quick: what it asks for is also found without it. Knows who is alive, and not what
the requests mean. All methods raise RedisUnreachable, RedisAuthFailed or RedisFull.
"""

from __future__ import annotations

from collections.abc import Mapping

from lorapool.shared.connection import Partition
from lorapool.shared.fleet.membership import Membership
from lorapool.shared.server.server import Arg, Command
from lorapool.shared.server.terms import CONTROL_MAX, TTL_MS


class WorkerRequests:
    """They travel in the pool's first partition."""

    def __init__(self, partition: Partition, members: Membership) -> None:
        self._server, self._keys, self._members = partition.server, partition.keys, members

    async def send(self, worker: str, request: Mapping[str, str]) -> None:
        """Ask that worker: ``op`` and its arguments."""
        key = self._keys.ctl(worker)
        fields: list[Arg] = [part for pair in request.items() for part in pair]
        add: Command = ("XADD", key, "MAXLEN", "~", CONTROL_MAX, "*", *fields)
        await self._server.pipeline([add, ("PEXPIRE", key, TTL_MS["ctl"])])

    async def ask_any(self, request: Mapping[str, str], but: str = "") -> str:
        """Ask one live worker, other than ``but``; returns its name, or nothing if none is alive."""
        worker = await self._members.liveliest(but)
        if worker:
            await self.send(worker, request)
        return worker
