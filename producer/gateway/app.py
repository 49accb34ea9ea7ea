"""The gateway as an ASGI app: which path goes where, and what all requests go through."""

from __future__ import annotations

from starlette.applications import Starlette
from starlette.routing import BaseRoute

from lorapool.producer.client.client import Client
from lorapool.producer.gateway.errors import ApiError, respond
from lorapool.producer.gateway.settings import GatewaySettings


def create_app(client: Client, settings: GatewaySettings) -> Starlette:
    """``client`` is open; whoever opened it closes it. Handlers find both in ``request.app.state``."""
    app = Starlette(routes=_routes(), exception_handlers={ApiError: respond})
    app.state.client, app.state.settings = client, settings
    return app


def _routes() -> list[BaseRoute]:
    return []
