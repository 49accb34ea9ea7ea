"""Slices: long work in the caller's event loop, done in pieces between which others get their turn."""

from __future__ import annotations

import asyncio
import time

SLICE_S = 0.01


class Slices:
    """``between`` two items others get their turn if the slice has lasted."""

    def __init__(self) -> None:
        self._until = time.perf_counter() + SLICE_S

    async def between(self) -> None:
        if time.perf_counter() >= self._until:
            await asyncio.sleep(0)
            self._until = time.perf_counter() + SLICE_S
