"""Attachment: a facade's connection to its pool, for methods that block and methods that are awaited.

One Client on one background thread, so that a facade may be used from several event loops one after another, and from
none. While it is closed, a blocking call opens a connection for itself alone. Knows nothing of what is asked.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeVar

from lorapool.producer.client.client import Client
from lorapool.producer.client.loop_thread import LoopThread

T = TypeVar("T")
Work = Callable[[Client], Awaitable[T]]


class Attachment:
    """``redis_url`` and ``pool`` as for Client."""

    def __init__(self, redis_url: str | None, pool: str | None) -> None:
        self._redis_url, self._pool = redis_url, pool
        self._thread: LoopThread | None = None
        self._client: Client | None = None

    @property
    def is_open(self) -> bool:
        return self._client is not None

    async def open(self) -> None:
        """Connect and stay connected. Raises RedisUnreachable, RedisAuthFailed, InvalidRequest."""
        if self._client is not None:
            return
        thread = LoopThread()
        try:
            self._client = await thread.call(self._entered())
        except BaseException:
            thread.stop()
            raise
        self._thread = thread

    async def close(self) -> None:
        """Give connection and thread back. Harmless to repeat."""
        client, thread = self._client, self._thread
        self._client = self._thread = None
        if client is not None and thread is not None:
            try:
                await thread.call(client.close())
            finally:
                thread.stop()

    def run(self, work: Work[T]) -> T:
        """Do it and wait, from code without an event loop or inside one, which stands still meanwhile."""
        if self._thread is not None and self._client is not None:
            return self._thread.run(_with(self._client, work))
        thread = LoopThread()
        try:
            return thread.run(self._alone(work))
        finally:
            thread.stop()

    async def call(self, work: Work[T]) -> T:
        """Do it and await it."""
        if self._thread is not None and self._client is not None:
            return await self._thread.call(_with(self._client, work))
        thread = LoopThread()
        try:
            return await thread.call(self._alone(work))
        finally:
            thread.stop()

    async def _entered(self) -> Client:
        return await Client(self._redis_url, pool=self._pool).__aenter__()

    async def _alone(self, work: Work[T]) -> T:
        async with Client(self._redis_url, pool=self._pool) as client:
            return await work(client)


async def _with(client: Client, work: Work[T]) -> T:
    return await work(client)
