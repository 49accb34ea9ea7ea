"""arq's Redis client, as this product wants it: our connection settings, arq's keys below the pool's, never a pickle.

arq names its keys ``arq:…``, one set for a whole server; here each is moved below ``lp:{<pool>}:`` on its way out, so
that pools do not meet and an ACL of one pool's keys suffices.
"""

from __future__ import annotations

from typing import Any

import msgpack
from arq.connections import ArqRedis

from lorapool.shared.server.keys import PoolKeys
from lorapool.shared.server.redis_client import connect
from lorapool.shared.server.settings import RedisSettings

MAX_TASK_BYTES = 65_536  # arq's record of a task; ours have no arguments


def arq_redis(settings: RedisSettings) -> ArqRedis:
    """A client with connections of its own; close it with ``aclose``."""
    keys = PoolKeys(settings.pool)
    pool: Any = connect(settings).connection_pool
    pool.connection_class = type("MovedConnection", (_Moved, pool.connection_class), {"prefix": keys.prefix.encode()})
    client = ArqRedis(pool, job_serializer=pack, job_deserializer=unpack, default_queue_name=keys.maintenance)
    client.auto_close_connection_pool = True
    return client


def pack(record: dict[str, Any]) -> bytes:
    """What arq keeps of a task, in msgpack; what msgpack cannot say (an exception) as text."""
    packed: bytes = msgpack.packb(record, default=repr)
    return packed


def unpack(packed: bytes) -> dict[str, Any]:
    """The same back; raises ValueError for anything else."""
    if len(packed) > MAX_TASK_BYTES:
        raise ValueError(f"task record takes {len(packed):,} bytes, the limit is {MAX_TASK_BYTES:,}")
    record = msgpack.unpackb(packed)
    if not isinstance(record, dict):
        raise ValueError(f"task record is a {type(record).__name__}, expected a map")  # noqa: TRY004 - arq's contract
    return record


class _Moved:
    """Mixed into a connection class of redis-py: every argument ``arq:…`` is sent with the pool's prefix."""

    prefix: bytes

    def pack_command(self, *args: Any) -> Any:
        return super().pack_command(*map(self._moved, args))  # type: ignore[misc]  # the class it is mixed into

    def pack_commands(self, commands: Any) -> Any:
        moved = [[self._moved(arg) for arg in command] for command in commands]
        return super().pack_commands(moved)  # type: ignore[misc]  # the same

    def _moved(self, arg: Any) -> Any:
        if isinstance(arg, str) and arg.startswith("arq:"):
            return self.prefix + arg.encode()
        return arg
