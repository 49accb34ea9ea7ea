"""Tasks that end when they are told to, though something below may swallow a cancellation.

redis-py sends through ``asyncio.wait_for``, which on Python 3.11 loses a cancellation that comes as the sending
completes (python/cpython#86296). From outside, cancel until the task has ended; from within, look whether one was lost.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

T = TypeVar("T")

ASK_AGAIN_S = 0.1


async def cancel_and_wait(*tasks: asyncio.Task[Any]) -> None:
    """Cancel these, again and again, until all have ended."""
    running = {task for task in tasks if not task.done()}
    while running:
        for task in running:
            task.cancel()
        _, running = await asyncio.wait(running, timeout=ASK_AGAIN_S)


async def cancellable(call: Callable[[], Awaitable[T]]) -> T:
    """The answer of ``call``; raises CancelledError where a cancellation came meanwhile and was swallowed."""
    before = _cancellations()
    answer = await call()
    if _cancellations() > before:
        raise asyncio.CancelledError
    return answer


def _cancellations() -> int:
    task = asyncio.current_task()
    return task.cancelling() if task else 0
