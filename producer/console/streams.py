"""Streams: server-sent events to the pages that are open, a bounded number of them in one process."""

from __future__ import annotations

from collections.abc import AsyncGenerator

from sse_starlette import EventSourceResponse, ServerSentEvent
from starlette.exceptions import HTTPException
from starlette.responses import Response

MOST_STREAMS = 64
PING_S = 15
Events = AsyncGenerator[ServerSentEvent, None]


class Streams:
    """How many are open in this process."""

    def __init__(self, most: int = MOST_STREAMS) -> None:
        self._most, self._open = most, 0

    def answer(self, events: Events) -> Response:
        """These events, as long as somebody listens. Raises HTTPException where too many streams are open."""
        if self._open >= self._most:
            raise HTTPException(503, "too many pages are open on this console: close some", {"retry-after": "10"})
        return EventSourceResponse(self._counted(events), ping=PING_S)

    async def _counted(self, events: Events) -> Events:
        self._open += 1
        try:
            async for event in events:
                yield event
        finally:
            self._open -= 1
            await events.aclose()
