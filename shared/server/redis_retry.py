"""Redis retry: asking again until the server answers.

Every operation of ours is safe to repeat, so a worker outlives a restart, a cut connection or a long outage by
repeating the call; the engine goes on stepping meanwhile. Knows nothing of what is asked.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

import structlog

from lorapool.shared.backoff import backoff
from lorapool.shared.errors import MalformedEntry, RedisFull, RedisUnreachable
from lorapool.shared.tasks import cancellable

T = TypeVar("T")

OUTAGES = (RedisUnreachable, RedisFull)
log = structlog.get_logger()


async def retry(call: Callable[[], Awaitable[T]], what: str, outlives: tuple[type[Exception], ...] = OUTAGES) -> T:
    """Repeat ``call`` until the server answers; other errors pass."""
    return await cancellable(lambda: _repeated(call, what, outlives))


async def retry_until_repaired(call: Callable[[], Awaitable[T]], what: str) -> T:
    """As ``retry``, for what a loop asks of the whole pool: also a damaged key is waited for, until an operator or
    whoever writes it next has put it right. Of a single item's damage the asker must hear: that is ``retry``'s."""
    return await retry(call, what, (*OUTAGES, MalformedEntry))


async def _repeated(call: Callable[[], Awaitable[T]], what: str, outlives: tuple[type[Exception], ...]) -> T:
    pauses = backoff()
    while True:
        try:
            return await call()
        except outlives as error:
            pause_s = next(pauses)
            log.warning("redis did not answer, trying again", doing=what, error=str(error), pause_s=round(pause_s, 2))
        await asyncio.sleep(pause_s)
