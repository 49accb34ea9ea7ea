"""persist: go on asking Redis until it answers; and ``put_down``: end tasks that may be asking.

Every broker operation is safe to repeat, so a worker outlives a restart, a cut connection or a long outage by
repeating the call; the engine goes on stepping meanwhile. Knows nothing of what is asked.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Iterable
from typing import Any, TypeVar

import structlog

from lorapool.shared.errors import MalformedEntry, RedisFull, RedisUnreachable

T = TypeVar("T")

OUTAGES = (RedisUnreachable, RedisFull)
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.05, 2.0
ASK_AGAIN_S = 0.1
log = structlog.get_logger()


async def persist(call: Callable[[], Awaitable[T]], what: str, outlives: tuple[type[Exception], ...] = OUTAGES) -> T:
    """Repeat ``call`` with exponential backoff and full jitter until the server answers; other errors pass."""
    pause_s = FIRST_PAUSE_S
    while True:
        try:
            answer = await call()
        except outlives as error:
            log.warning("redis did not answer, trying again", doing=what, error=str(error), pause_s=round(pause_s, 2))
        else:
            _heed_cancellation()
            return answer
        await asyncio.sleep(pause_s * random.uniform(0.5, 1.0))  # noqa: S311  jitter, not a secret
        pause_s = min(2 * pause_s, LONGEST_PAUSE_S)


async def insist(call: Callable[[], Awaitable[T]], what: str) -> T:
    """As ``persist``, for what a loop asks of the whole pool: also a damaged key is waited for, until an operator or
    whoever writes it next has put it right. Of a single item's damage the asker must hear: that is ``persist``'s."""
    return await persist(call, what, (*OUTAGES, MalformedEntry))


async def put_down(tasks: Iterable[asyncio.Task[Any]]) -> None:
    """Cancel until all have ended. Once may not do: redis-py sends through ``asyncio.wait_for``, which on Python 3.11
    swallows a cancellation that comes as the sending completes (python/cpython#86296)."""
    left = set(tasks)
    while left:
        for task in left:
            task.cancel()
        _, left = await asyncio.wait(left, timeout=ASK_AGAIN_S)


def _heed_cancellation() -> None:
    """The same, from within: a cancellation swallowed below is still on record."""
    task = asyncio.current_task()
    if task is not None and task.cancelling():
        raise asyncio.CancelledError
