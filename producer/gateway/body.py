"""Bodies: bounded in bytes, in the time they take to come, and in what they may be.

A size that is announced is refused before anything is read; one that is not, as soon as it is exceeded. Knows neither
who asks nor what for, but that files may be larger than the rest.
"""

from __future__ import annotations

import asyncio
import time
from typing import Any

from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from lorapool.producer.gateway.errors import ApiError
from lorapool.producer.gateway.fields import object_of
from lorapool.producer.gateway.settings import GatewaySettings

SLOWEST = 16 << 10  # bytes a second
DISCARDED = 64 << 20  # bytes of a body that is refused: who still sends would see a broken connection, not why
FILES = "/v1/files"
_CLOSE = {"connection": "close", "x-should-retry": "false"}


class BodyLimit:
    """ASGI middleware: what reads a body past its bounds gets an ApiError (413, 408)."""

    def __init__(self, app: ASGIApp, settings: GatewaySettings) -> None:
        self._app, self._settings = app, settings

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        limit = self._limit(scope)
        announced = next((value for name, value in scope["headers"] if name == b"content-length"), b"0")
        bounded = _Bounded(receive, limit, self._settings.slow_s)
        if int(announced) > limit:  # the server has refused what is no number
            if not any(name == b"expect" for name, _ in scope["headers"]):
                await bounded.discard()
            raise _too_large(limit)
        await self._app(scope, bounded, send)

    def _limit(self, scope: Scope) -> int:
        settings = self._settings
        return settings.max_file_bytes + (1 << 20) if scope["path"] == FILES else settings.max_body_bytes


class _Bounded:
    """``receive``, counting."""

    def __init__(self, receive: Receive, limit: int, slow_s: float) -> None:
        self._receive, self._limit, self._slow_s = receive, limit, slow_s
        self._came, self._began, self._more = 0, time.monotonic(), True

    async def __call__(self) -> Message:
        if not self._more:  # what comes now is that the client left, whenever that is
            return await self._receive()
        message = await self._next()
        if self._came > self._limit:
            await self.discard()
            raise _too_large(self._limit)
        return message

    async def discard(self) -> None:
        """Read on, for a while, what nobody wants."""
        while self._more and self._came < self._limit + DISCARDED:
            await self._next()

    async def _next(self) -> Message:
        message = await self._in_time()
        self._more = message["type"] == "http.request" and message.get("more_body", False)
        self._came += len(message.get("body", b""))
        return message

    async def _in_time(self) -> Message:
        left_s = self._began + self._slow_s + self._came / SLOWEST - time.monotonic()
        try:
            async with asyncio.timeout(max(0.0, left_s)):
                return await self._receive()
        except TimeoutError:
            raise ApiError(408, "the body of this request comes too slowly", code="slow_body", headers=_CLOSE) from None


def _too_large(limit: int) -> ApiError:
    message = f"the body of this request is larger than {limit:,} bytes"
    return ApiError(413, message, code="request_too_large", headers={"connection": "close"})


async def json_body(request: Request) -> dict[str, Any]:
    """The JSON object that was sent. Raises ApiError."""
    return object_of(await request.body())
