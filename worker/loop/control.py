"""Control: reads what others ask of this worker: cancel a job, load an adapter, validate a new one.

A request is a hint that makes things quick; what it says is also found by renewing (cancel), by jobs that come
(load) and by looking at pending adapters (validate), so that a lost one costs time only.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping

import structlog

from lorapool.shared.malformed import UNREADABLE, step_over
from lorapool.shared.queue.worker import WorkerQueue
from lorapool.shared.server.redis_retry import retry_until_repaired

BLOCK_S = 5.0
log = structlog.get_logger()

Handler = Callable[[Mapping[str, str]], Awaitable[None]]


class Control:
    """Reads the control stream of ``worker`` and calls the handler of each request's ``op``."""

    def __init__(self, queue: WorkerQueue, worker: str, handlers: Mapping[str, Handler]) -> None:
        self._queue, self._worker, self._handlers = queue, worker, handlers
        self._last_id = "0"

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            for entry_id, request in await retry_until_repaired(self._read, "control"):
                self._last_id = entry_id
                await self._handle(request)

    async def _read(self) -> list[tuple[str, dict[str, str]]]:
        return await self._queue.control(self._worker, self._last_id, BLOCK_S)

    async def _handle(self, request: Mapping[str, str]) -> None:
        handler = self._handlers.get(request.get("op", ""))
        if handler is None:
            step_over("control request", dict(request), ValueError("no request that this release understands"))
            return
        try:
            await handler(request)
        except UNREADABLE as error:  # a request is a hint: the next one must be heard
            step_over("control request", dict(request), error)
