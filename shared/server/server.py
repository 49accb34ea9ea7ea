"""Server: a Redis server as everything here talks to it: plain commands, pipelines, blocking reads, typed errors.

Knows how redis-py is called, what its failures are called here, and nothing of our keys. Pipelines are never
transactions: an operation that must be atomic is a script.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial
from typing import Any

from redis.asyncio import ConnectionPool, Redis
from redis.exceptions import BusyLoadingError, RedisError, ResponseError

from lorapool.shared.backoff import jittered
from lorapool.shared.errors import LorapoolError, MalformedEntry, RedisAuthFailed, RedisUnreachable
from lorapool.shared.server.failures import translated
from lorapool.shared.tasks import cancellable

Arg = str | bytes | float
READ_MARGIN_S = 2.0  # a blocking read gives up this much before its socket does
MAX_BLOCKING = 4096  # a blocking read holds its connection: one for every job streamed at a time
PIPELINED = 256  # commands: the event loop stands still while so many are packed, or their replies read
Command = Sequence[Arg]

PAUSES_S = (0.03, 0.13, 0.5)  # before the second, third and fourth try


class Server:
    """Commands raise RedisUnreachable, RedisAuthFailed or RedisFull. Replies are bytes.

    A command whose connection broke is sent again, three times within about half a second: every operation of ours
    may be repeated.
    """

    def __init__(self, redis: Redis, pauses_s: Sequence[float] = PAUSES_S) -> None:
        self._redis: Any = redis
        self._pauses_s = pauses_s

    async def command(self, *command: Arg) -> Any:
        """One command, one round trip; what redis-py makes of the reply."""
        return await self._repeated(lambda: self._redis.execute_command(*command))

    async def pipeline(self, commands: Sequence[Command]) -> list[Any]:
        """Many commands, 256 a round trip; a reply for each, or a MalformedEntry where its key is damaged."""
        replies: list[Any] = []
        for start in range(0, len(commands), PIPELINED):
            part = commands[start : start + PIPELINED]
            replies += await self._repeated(partial(self._pipelined, part))
        return replies

    async def ping(self) -> None:
        """Raises RedisUnreachable or RedisAuthFailed if the server cannot serve us."""
        await self.command("PING")

    async def eviction_policy(self) -> str:
        """Its ``maxmemory-policy``: anything but ``noeviction`` may lose jobs. Empty where this user may not ask."""
        try:
            memory = await self.command("INFO", "memory")
        except RedisAuthFailed:
            return ""
        return str(memory.get("maxmemory_policy", ""))

    async def now_ms(self) -> int:
        """The server's clock."""
        seconds, microseconds = await self.command("TIME")
        return int(seconds) * 1000 + int(microseconds) // 1000

    async def scan(self, pattern: str) -> list[bytes]:
        """Every key that matches, each once, a thousand looked at a round trip: for reports, not for the hot path."""
        keys: set[bytes] = set()
        cursor = 0
        while True:
            cursor, raw = await self.command("SCAN", cursor, "MATCH", pattern, "COUNT", 1000)
            keys.update(raw)
            if not int(cursor):
                return sorted(keys)

    def for_blocking(self) -> Server:
        """The same server for blocking reads: on connections of their own, and never retried."""
        pool = self._redis.connection_pool
        options = {**pool.connection_kwargs, "health_check_interval": 0}
        twin = ConnectionPool(connection_class=pool.connection_class, max_connections=MAX_BLOCKING, **options)
        return Server(Redis.from_pool(twin), pauses_s=())

    def block_s(self, wanted_s: float) -> float:
        """How long a command may block: less than its socket's timeout."""
        socket_s = self._redis.connection_pool.connection_kwargs.get("socket_timeout")
        return wanted_s if socket_s is None else max(0.001, min(wanted_s, socket_s - READ_MARGIN_S))

    async def read(
        self, key: str, last_id: str, timeout_s: float, count: int = 1000, *, first: Command = ()
    ) -> list[tuple[str, dict[str, bytes]]]:
        """Up to ``count`` entries of a stream after ``last_id``, waiting up to ``timeout_s`` for the first; the command
        ``first`` goes before, in the same round trip."""
        block: Command = ("BLOCK", max(1, round(self.block_s(timeout_s) * 1000))) if timeout_s > 0 else ()
        read: Command = ("XREAD", "COUNT", count, *block, "STREAMS", key, last_id or "0-0")
        raw = (await self.pipeline([first, read]))[-1] if first else await self.command(*read)
        if isinstance(raw, MalformedEntry):
            raise raw
        return _entries(raw)

    async def aclose(self) -> None:
        """Close the connections; the server object must be this one's own (``for_blocking``)."""
        await self._redis.aclose(close_connection_pool=True)
        await self._redis.connection_pool.disconnect()

    @property
    def is_fake(self) -> bool:
        """fakeredis, in tests: it cannot parse ``#!lua`` in EVAL."""
        module: str = self._redis.connection_pool.connection_class.__module__
        return module.partition(".")[0] == "fakeredis"

    async def _pipelined(self, commands: Sequence[Command]) -> list[Any]:
        async with self._redis.pipeline(transaction=False) as pipe:
            for command in commands:
                pipe.execute_command(*command)
            replies = await pipe.execute(raise_on_error=False)
        return [self._in_place(reply) for reply in replies]

    def _in_place(self, reply: Any) -> Any:
        """A reply of a pipeline; MalformedEntry where that one key is damaged. Raises any other error."""
        if not isinstance(reply, Exception):
            return reply
        ours = translated(reply, self._redis)
        if isinstance(ours, MalformedEntry):
            return ours
        raise reply

    async def _repeated(self, call: Callable[[], Awaitable[Any]]) -> Any:
        unsure, pauses_s = False, iter(self._pauses_s)
        while True:
            try:
                return await self._guarded(call)
            except LorapoolError as error:
                error.unsure = unsure = unsure or error.unsure  # of any try so far
                pause_s = next(pauses_s, None)
                if pause_s is None or not isinstance(error, RedisUnreachable) or isinstance(error, RedisAuthFailed):
                    raise
            await asyncio.sleep(jittered(pause_s))

    async def _guarded(self, call: Callable[[], Awaitable[Any]]) -> Any:
        try:
            return await cancellable(call)
        except (RedisError, OSError) as error:
            ours = translated(error, self._redis)
            if ours is None:
                raise
            half_way = isinstance(ours, MalformedEntry)  # a script that met damage may have done a part
            ours.unsure = half_way or (ours.unsure and not _never_ran(error))
            raise ours from error


def _never_ran(error: BaseException) -> bool:
    """Whether what was asked was surely not carried out: the server said so, or nobody was there to hear it."""
    refused = isinstance(error, ResponseError | BusyLoadingError)
    return refused or isinstance(error.__cause__ or error.__context__, ConnectionRefusedError | socket.gaierror)


def _entries(raw: Any) -> list[tuple[str, dict[str, bytes]]]:
    """XREAD's answer for one stream: a list of pairs under RESP2, a map under RESP3."""
    if not raw:
        return []
    if isinstance(raw, dict):
        [entries] = raw.values()
        entries = entries[0] if len(entries) == 1 and isinstance(entries[0], list) else entries
    else:
        [[_, entries]] = raw
    return [(entry_id.decode(), _fields(fields)) for entry_id, fields in entries]


def _fields(fields: Any) -> dict[str, bytes]:
    pairs = fields.items() if isinstance(fields, Mapping) else zip(fields[::2], fields[1::2], strict=True)
    return {name.decode(errors="replace"): value for name, value in pairs}


def scores(answer: Any) -> list[tuple[bytes, float]]:
    """Members and scores of a sorted set: a flat list under RESP2, pairs under RESP3."""
    paired = bool(answer) and isinstance(answer[0], list | tuple)
    pairs = answer if paired else zip(answer[::2], answer[1::2], strict=True)
    return [(member, float(score)) for member, score in pairs]
