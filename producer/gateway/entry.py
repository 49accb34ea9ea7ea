"""Entry: what every request gets: an id, and an answer in the API's form whatever happens behind.

Outermost of the gateway's own; knows no path.
"""

from __future__ import annotations

import re
import secrets

import structlog
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from lorapool.producer.gateway.errors import ApiError, respond
from lorapool.shared.errors import LorapoolError

_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
log = structlog.get_logger("lorapool")


class Entry:
    """ASGI middleware. A caller's own ``x-request-id`` is kept, if it is a plain one."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request_id = _request_id(scope)
        scope.setdefault("state", {})["request_id"] = request_id
        begun = False

        async def send_with_id(message: Message) -> None:
            nonlocal begun
            if message["type"] == "http.response.start":
                begun = True
                message = {**message, "headers": [*message.get("headers", ()), (b"x-request-id", request_id.encode())]}
            await send(message)

        try:
            await self._app(scope, receive, send_with_id)
        except Exception as error:
            if not isinstance(error, ApiError | LorapoolError):
                log.exception("request_failed", request_id=request_id, path=scope["path"])
            if begun:
                raise
            await (await respond(Request(scope), error))(scope, receive, send_with_id)


def _request_id(scope: Scope) -> str:
    given = next((value for name, value in scope["headers"] if name == b"x-request-id"), b"").decode("latin-1")
    return given if _ID.fullmatch(given) else f"req_{secrets.token_hex(12)}"
