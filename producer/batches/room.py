"""Room: how much of its agent's window a batch may take: half of it, so that the agent can still ask for itself.

Looks at what the agent has undelivered on an adapter, all batches and replicas together, and hands out what is left.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial

from lorapool.producer.batches.lease import Held, outlasting
from lorapool.producer.client.client import Client

LOOK_S = 0.05


class Room:
    """Of one batch."""

    def __init__(self, client: Client, held: Held) -> None:
        self._client, self._held = client, held
        self._left: dict[str | None, int] = defaultdict(int)
        self._sending: dict[str | None, int] = defaultdict(int)
        self._turns: dict[str | None, asyncio.Lock] = defaultdict(asyncio.Lock)

    @asynccontextmanager
    async def place(self, adapter: str | None) -> AsyncIterator[None]:
        """One on that adapter, for a job that is sent within; waited for until the batch ends."""
        async with self._turns[adapter]:
            while self._left[adapter] <= 0 and not self._held.ending.is_set():
                self._left[adapter] = await self._look(adapter)
                if self._left[adapter] <= 0:
                    await self._held.pause(LOOK_S)
            self._left[adapter] -= 1
        self._sending[adapter] += 1
        try:
            yield
        finally:
            self._sending[adapter] -= 1

    async def _look(self, adapter: str | None) -> int:
        """One that arrives meanwhile is counted twice rather than never."""
        batch, sending = self._held.batch, self._sending[adapter]
        waiting, limit = await outlasting(partial(self._client.window, adapter, batch.agent, batch.key))
        return max(1, limit // 2) - waiting - sending
