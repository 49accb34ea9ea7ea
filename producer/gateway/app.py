"""The gateway as an ASGI app: which path goes where, and what all requests go through."""

from __future__ import annotations

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.routing import BaseRoute, Mount

from lorapool.producer.batches.batch_run import Pace
from lorapool.producer.client.client import Client
from lorapool.producer.console.app import create_console
from lorapool.producer.gateway import (
    batches,
    completions,
    files,
    generate,
    health,
    models,
    not_served,
    openapi,
)
from lorapool.producer.gateway.access import Access
from lorapool.producer.gateway.batch_door import BatchDoor
from lorapool.producer.gateway.body import BodyLimit
from lorapool.producer.gateway.entry import Entry
from lorapool.producer.gateway.errors import ApiError, respond
from lorapool.producer.gateway.feeding import Feeding
from lorapool.producer.gateway.files import OpenFiles
from lorapool.producer.gateway.models import Models
from lorapool.producer.gateway.responses import routes as responses
from lorapool.producer.gateway.settings import GatewaySettings
from lorapool.shared.errors import LorapoolError


def create_app(client: Client, settings: GatewaySettings) -> Starlette:
    """``client`` is open; whoever opened it closes it. Handlers find both in ``request.app.state``."""
    middleware = [Middleware(Entry), Middleware(Access, client.keys), Middleware(BodyLimit, settings)]
    handlers = {ApiError: respond, LorapoolError: respond, HTTPException: not_served.respond}
    app = Starlette(routes=_routes(client), middleware=middleware, exception_handlers=handlers)
    app.state.client, app.state.keys, app.state.settings = client, client.keys, settings
    app.state.models = Models(client)
    app.state.files = OpenFiles(client, settings)
    door, pace = BatchDoor(app.state.models, settings), Pace(lease_s=settings.batch_lease_s)
    app.state.feeding = Feeding(client, app.state.files, door, pace)
    return app


def _routes(client: Client) -> list[BaseRoute]:
    """The console has its own way in: an operator's key, or this machine while there are none."""
    served = (
        models,
        completions,
        responses,
        files,
        batches,
        generate,
        health,
        openapi,
    )
    return [route for module in served for route in module.routes()] + [
        Mount("/console", create_console(client)),
        *not_served.routes(),
    ]
