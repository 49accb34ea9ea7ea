"""The redis-py client that a process talks through, and how each of its connections behaves.

Every option that redis-py changed its mind about is set explicitly.
"""

from __future__ import annotations

import socket
from typing import Any

from hiredis import pack_command
from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from lorapool.shared.server.settings import RedisSettings


def connect(settings: RedisSettings) -> Redis:
    """A client of the server; it connects at first use. Replies are bytes.

    redis-py retries nothing: it would also retry a wrong password, and differently in each release. Server does.
    Above ``max_connections`` commands at a time, the next ones wait their turn.
    """
    url = settings.redis_url.get_secret_value()
    alive = {} if url.startswith("unix:") else {"socket_keepalive": True, "socket_keepalive_options": _keepalive()}
    pool = BlockingConnectionPool.from_url(
        url,
        socket_timeout=settings.socket_timeout_s,
        socket_connect_timeout=settings.connect_timeout_s,
        **alive,
        health_check_interval=settings.health_check_s,
        retry=Retry(NoBackoff(), 0),
        decode_responses=False,
        max_connections=settings.max_connections,
        timeout=None,  # a command waits for a free connection as long as those before it take
    )
    pool.connection_class = _packing(pool.connection_class)
    return Redis.from_pool(pool)


class _PackedInC:
    """A connection whose commands hiredis packs; redis-py lets it do that in the blocking client only."""

    def pack_command(self, *command: str | bytes | float) -> list[bytes]:
        name, *arguments = command
        words = name.encode().split() if isinstance(name, str) else [name]
        packed: bytes = pack_command((*words, *arguments))
        return [packed]


def _packing(kind: Any) -> Any:
    """That class of connections, faster: packing in Python was a fifth of a worker's time a job."""
    return type(f"Packed{kind.__name__}", (_PackedInC, kind), {})


def _keepalive() -> dict[int, int]:
    """Notice a dead peer within about half a minute, where the system lets us say so."""
    wanted = {"TCP_KEEPIDLE": 15, "TCP_KEEPINTVL": 5, "TCP_KEEPCNT": 3}
    return {getattr(socket, name): value for name, value in wanted.items() if hasattr(socket, name)}
