"""EventStream: a response of server-sent events, sent as fast as the client takes them, ended when it leaves.

Nothing is read ahead of what the client has taken but the connection's own buffer. Knows nothing of what is sent.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from typing import Any

from starlette.types import Receive, Scope, Send

from lorapool.producer.gateway.asking import gone
from lorapool.producer.gateway.errors import ApiError
from lorapool.shared.tasks import cancel_and_wait

HEADERS = {"content-type": "text/event-stream; charset=utf-8", "cache-control": "no-cache", "x-accel-buffering": "no"}
DONE = b"data: [DONE]\n\n"
_ENDING = ApiError(
    503,
    "this gateway is being shut down; the job goes on: ask again with the Last-Event-ID, or the same Idempotency-Key",
    kind="server_error",
    code="shutting_down",
)


def event(data: str, event_id: str = "") -> bytes:
    """One event of one line."""
    head = f"id: {event_id}\n" if event_id else ""
    return f"{head}data: {data}\n\n".encode(errors="replace")


def error_event(error: ApiError) -> bytes:
    """An error within a stream."""
    return event(json.dumps(error.body()))


class EventStream:
    """An ASGI response. ``on_gone`` is awaited when the client has left before the end."""

    def __init__(
        self,
        events: AsyncGenerator[bytes, None],
        *,
        headers: Mapping[str, str] | None = None,
        on_gone: Callable[[], Awaitable[Any]] | None = None,
    ) -> None:
        self._events, self._on_gone = events, on_gone
        self._headers = [(name.encode(), value.encode()) for name, value in {**HEADERS, **(headers or {})}.items()]

    async def __call__(self, _: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": self._headers})
        sending, leaving = asyncio.create_task(self._send(send)), asyncio.create_task(gone(receive))
        try:
            await asyncio.wait((sending, leaving), return_when=asyncio.FIRST_COMPLETED)
        except asyncio.CancelledError:  # the time for draining is up, and the server ends only this task so
            await cancel_and_wait(sending)
            await self._last(send, error_event(_ENDING))
            return
        finally:
            await cancel_and_wait(sending, leaving)
            await self._events.aclose()
        if sending.cancelled():
            if self._on_gone is not None:
                await self._on_gone()
            return
        sending.result()

    async def _send(self, send: Send) -> None:
        async for chunk in self._events:
            await send({"type": "http.response.body", "body": chunk, "more_body": True})
        await self._last(send, b"")

    async def _last(self, send: Send, chunk: bytes) -> None:
        await send({"type": "http.response.body", "body": chunk, "more_body": False})
