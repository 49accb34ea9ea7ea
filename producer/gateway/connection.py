"""Connection: uvicorn's, for clients that may be slow or hostile: nobody holds one for ever by doing nothing.

A client that does not send its headers, or does not take what it is sent, is cut off after a while; beyond a number of
connections the next is closed at once. Bodies are body.py's.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

MAX_HEADER_BYTES = 64 << 10


def connections(most: int, slow_s: float) -> type[asyncio.Protocol]:
    """A class of at most so many, with so much patience."""
    return type("BoundedConnection", (Connection,), {"most": most, "slow_s": slow_s})


class Connection(HttpToolsProtocol):
    """Made by ``connections``."""

    most = 0
    slow_s = 0.0

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._sending: asyncio.TimerHandle | None = None  # its headers
        self._taking: asyncio.TimerHandle | None = None  # what it is sent
        self._head_bytes = 0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn's own
        super().connection_made(transport)
        if len(self.connections) > self.most:
            transport.abort()
            return
        self._sending = self._later(self._cut_off)

    def connection_lost(self, exc: Exception | None) -> None:
        _stop(self._sending)
        _stop(self._taking)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Bytes of a head count while it is not complete."""
        self._head_bytes += len(data)
        super().data_received(data)
        if self._sending is not None and self._head_bytes > MAX_HEADER_BYTES:
            self._cut_off()

    def on_message_begin(self) -> None:
        super().on_message_begin()
        if self._sending is None:
            self._head_bytes = 0
            self._sending = self._later(self._cut_off)

    def on_headers_complete(self) -> None:
        _stop(self._sending)
        self._sending = None
        super().on_headers_complete()

    def pause_writing(self) -> None:
        super().pause_writing()
        self._taking = self._taking or self._later(self._cut_off)

    def resume_writing(self) -> None:
        _stop(self._taking)
        self._taking = None
        super().resume_writing()

    def _later(self, call: Callable[[], None]) -> asyncio.TimerHandle:
        return self.loop.call_later(self.slow_s, call)

    def _cut_off(self) -> None:
        if self.transport is not None:
            self.transport.abort()


def _stop(timer: asyncio.TimerHandle | None) -> None:
    if timer is not None:
        timer.cancel()
