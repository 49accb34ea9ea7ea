"""``/health``: whether this gateway can take work: its Redis answers."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route

from lorapool.producer.client.client import Client


async def health(request: Request) -> Response:
    """200, or the error of a server that is away."""
    client: Client = request.app.state.client
    await client.config()
    return JSONResponse({"status": "ok"})


def routes() -> list[BaseRoute]:
    """Its part of the app."""
    return [Route("/health", health)]
