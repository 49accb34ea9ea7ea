"""Waiting and giving way: how the client waits out a server that is away, ends its own tasks, and lets others run.

Longer each time, never in step with others, quietly. Knows no Redis.
"""

from __future__ import annotations

import asyncio
import random
import time
from typing import Any

FIRST_S, LAST_S = 0.05, 2.0
SLICE_S = 0.01


async def back_off(event: str, error: Exception, pause_s: float) -> float:
    """Sleep about ``pause_s`` doubled, and return that; 0 is the first time."""
    pause_s = min(LAST_S, pause_s * 2 or FIRST_S)
    mention(event, error=str(error), retry_s=pause_s)
    await asyncio.sleep(pause_s * random.uniform(0.5, 1.0))  # noqa: S311 - jitter
    return pause_s


class Slices:
    """Long work of one's own in slices: ``between`` two items others get their turn if the slice has lasted."""

    def __init__(self) -> None:
        self._until = time.perf_counter() + SLICE_S

    async def between(self) -> None:
        if time.perf_counter() >= self._until:
            await asyncio.sleep(0)
            self._until = time.perf_counter() + SLICE_S


async def end(*tasks: asyncio.Task[Any]) -> None:
    """Cancel until they are done: on Python 3.11 redis-py loses a cancel that meets the end of a send (wait_for)."""
    running = {task for task in tasks if not task.done()}
    while running:
        for task in running:
            task.cancel()
        _, running = await asyncio.wait(running, timeout=0.2)


def mention(event: str, **fields: object) -> None:
    """Log, unless the host never configured structlog: it would find prints on its stdout."""
    import structlog  # here, because importing the client must stay quick

    if structlog.is_configured():
        structlog.get_logger("lorapool").warning(event, **fields)
