"""The console as an ASGI app: which path is which page. Whoever serves it mounts it where they like.

Server-side pages over a Client; no state of its own, so that any replica answers any request. It imports no gateway.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Mount, Route
from starlette.staticfiles import StaticFiles
from starlette.types import Scope

from lorapool.producer.client.client import Client
from lorapool.producer.console import (
    adapters,
    agents,
    aliases,
    batches,
    dead,
    jobs,
    overview,
    playground,
    schedules,
    signing,
    trail,
    workers,
)
from lorapool.producer.console.desk import Desk, Handler
from lorapool.producer.console.headers import Headers
from lorapool.producer.console.pages import ASSETS, Pages
from lorapool.producer.console.streams import Streams

LIVE_PAGES = (overview.PAGE, adapters.LIST, adapters.ONE, workers.PAGE, jobs.LIST, jobs.ONE, batches.PAGE)
ACTS = (*adapters.ACTS, *aliases.ACTS, *jobs.ACTS, *dead.ACTS, *schedules.ACTS, *batches.ACTS, *agents.ACTS)


def create_console(client: Client) -> Starlette:
    """``client`` is open; whoever opened it closes it. Where the pool has API keys, an operator's is asked for."""
    desk = Desk(client, Pages(client.pool), Streams())
    return Starlette(
        routes=_routes(desk),
        middleware=[Middleware(Headers)],
        exception_handlers={HTTPException: _told_by(desk)},
    )


def _routes(desk: Desk) -> list[BaseRoute]:
    """Fixed paths stand before those with a name in them."""
    return [
        Mount("/assets", _Assets(directory=ASSETS), name="assets"),
        *(Route(path, desk.endpoint(handler, anybody=True), methods=[method]) for method, path, handler in _OF_ANYBODY),
        *(Route(path, desk.endpoint(handler), methods=[method]) for method, path, handler in _OF_OPERATORS),
        *(route for act in ACTS for route in act.routes(desk)),
        *(route for page in LIVE_PAGES for route in page.routes(desk)),
    ]


_OF_ANYBODY: tuple[tuple[str, str, Handler], ...] = (
    ("GET", "/sign-in", signing.page),
    ("POST", "/sign-in", signing.enter),
)
_OF_OPERATORS: tuple[tuple[str, str, Handler], ...] = (
    ("POST", "/sign-out", signing.leave),
    ("GET", "/jobs/find", jobs.find),
    ("GET", "/aliases", aliases.choose),
    ("GET", "/aliases/{name}", aliases.page),
    ("GET", "/dead", dead.page),
    ("GET", "/schedules", schedules.page),
    ("GET", "/agents", agents.page),
    ("POST", "/keys", agents.add_key),
    ("GET", "/playground", playground.page),
    ("POST", "/playground", playground.ask),
    ("GET", "/playground/names", playground.names),
    ("GET", "/playground/stream", playground.stream),
    ("POST", "/playground/stop", playground.stop),
    ("GET", "/audit", trail.page),
)


class _Assets(StaticFiles):
    """Their addresses change with their content, so that a browser need not ask again."""

    async def get_response(self, path: str, scope: Scope) -> Response:
        response = await super().get_response(path, scope)
        response.headers["cache-control"] = "public, max-age=31536000, immutable"
        return response


def _told_by(desk: Desk) -> Callable[[Request, Exception], Awaitable[Response]]:
    """Starlette's handler of what its router says, and the desk."""

    async def told(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        page = desk.pages.page(request, "error.html", error.status_code, kind="", message=str(error.detail))
        page.headers.update(error.headers or {})
        return page

    return told
