"""Desk: what every page of the console has at hand, and what each request goes through: whose it is, and whether our
own page sent it.

Where the pool has keys, a reader signs in with an operator's and has a session; without keys the console is open to
this host, under a name that leads nowhere else.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from urllib.parse import quote, urlsplit

import structlog
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from lorapool.producer.client.client import Client
from lorapool.producer.console.pages import Pages, base_of
from lorapool.producer.console.streams import Streams
from lorapool.shared import errors
from lorapool.shared.errors import LorapoolError

SESSION = "lorapool_session"
LOCAL = "local"  # who acts where nobody has to say who they are
_LOOPBACK = frozenset({"127.0.0.1", "localhost", "::1"})
_SAFE = frozenset({"GET", "HEAD"})
Handler = Callable[["Desk", Request], Awaitable[Response]]
_STATUS: dict[type[LorapoolError], int] = {
    errors.PayloadTooLarge: 413,
    errors.UnknownAdapter: 404,
    errors.UnknownJob: 404,
    errors.UnknownSchedule: 404,
    errors.UnknownKey: 404,
    errors.ResultExpired: 404,
    errors.InvalidRequest: 400,
    errors.RedisUnreachable: 503,
}


@dataclass(frozen=True, slots=True)
class Desk:
    """One console's."""

    client: Client
    pages: Pages
    streams: Streams

    def endpoint(self, handler: Handler, *, anybody: bool = False) -> Callable[[Request], Awaitable[Response]]:
        """A handler as Starlette calls it: asked by those who may, its errors told on a page."""

        async def endpoint(request: Request) -> Response:
            try:
                _check_origin(request)
                if not anybody and (refused := await self._admit(request)):
                    return refused
                return await handler(self, request)
            except LorapoolError as error:
                return self._told(request, error)

        return endpoint

    async def who(self, request: Request) -> str | None:
        """Who asks: a key's name; LOCAL on this host while the pool has no keys; None for those who must sign in."""
        if not await self.client.keys.any():
            _check_local(request)
            return LOCAL
        token = request.cookies.get(SESSION, "")
        return await self.client.sessions.who(token) if token else None

    async def may_go_on(self, request: Request) -> bool:
        """Whether whoever began a stream may still read: their key may be gone by now."""
        try:
            return bool(await self.who(request) == request.state.who)
        except LorapoolError:
            return True  # the stream itself says what the trouble is

    async def _admit(self, request: Request) -> Response | None:
        request.state.who = await self.who(request)
        if request.state.who is not None:
            return None
        if request.method not in _SAFE or request.url.path.endswith("/live"):
            raise HTTPException(401, "sign in first")
        asked_for = request.url.path.removeprefix(base_of(request))
        return RedirectResponse(f"{base_of(request)}/sign-in?to={quote(asked_for)}", 303)

    def _told(self, request: Request, error: LorapoolError) -> Response:
        status = next((code for kind, code in _STATUS.items() if isinstance(error, kind)), 409)
        if status == 503:
            structlog.get_logger("lorapool").warning("console_unserved", path=request.url.path, error=str(error))
        return self.pages.page(request, "error.html", status, kind=type(error).__name__, message=str(error))


def _check_origin(request: Request) -> None:
    """What changes something comes from a page of ours: a browser says from where. Raises HTTPException."""
    if request.method in _SAFE:
        return
    site, origin = request.headers.get("sec-fetch-site"), request.headers.get("origin")
    ours = origin is not None and urlsplit(origin).netloc == request.headers.get("host")
    if not ours or site not in {None, "same-origin"}:
        raise HTTPException(403, "this was sent from another page than the console's own")


def _check_local(request: Request) -> None:
    """A name of another host that leads here (DNS rebinding) is refused. Raises HTTPException."""
    if request.url.hostname not in _LOOPBACK:
        raise HTTPException(403, "the pool has no API keys: its console is open on http://127.0.0.1 alone")
