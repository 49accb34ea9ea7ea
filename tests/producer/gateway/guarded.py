"""Guarded: a gateway without a socket in front of it, its routes, and how it is asked."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import httpx
from starlette.applications import Starlette
from starlette.routing import BaseRoute, Mount, Route

from lorapool.producer.client.client import Client

WRONG = "lp-" + "w" * 43


@dataclass
class Door:
    """A gateway and its pool."""

    client: Client
    app: Starlette

    @asynccontextmanager
    async def asking(self, secret: str = "", **options: Any) -> AsyncIterator[httpx.AsyncClient]:
        headers = {"authorization": f"Bearer {secret}"} if secret else {}
        transport = httpx.ASGITransport(app=self.app, client=options.pop("client", ("127.0.0.1", 1)))
        base = options.pop("base_url", "http://127.0.0.1:8080")
        async with httpx.AsyncClient(transport=transport, base_url=base, headers=headers, **options) as http:
            yield http

    async def status(self, secret: str = "", path: str = "/v1/models", **options: Any) -> int:
        async with self.asking(secret, **options) as http:
            return (await http.get(path)).status_code


def routes(of: list[BaseRoute], prefix: str = "") -> Iterator[tuple[str, str]]:
    """(method, path) of all, whatever they are mounted below."""
    for route in of:
        if isinstance(route, Mount):
            yield from routes(list(route.routes), prefix + route.path)
        else:
            assert isinstance(route, Route)
            yield from ((method, prefix + route.path) for method in sorted(route.methods or {"GET"}))


def filled(path: str) -> str:
    """With something for each parameter."""
    parts = (f"x{part.partition('}')[2]}" if "}" in part else part for part in path.split("{"))
    return "".join(parts)


def locked(app: Starlette) -> list[tuple[str, str]]:
    """All but what is open, and the console, which has its own door."""
    return [
        (m, filled(path)) for m, path in routes(app.routes) if path != "/health" and not path.startswith("/console")
    ]


ASKING: dict[str, dict[str, Any]] = {
    "/v1/chat/completions": {"model": "cfo", "messages": [{"role": "user", "content": "x"}]},
    "/v1/completions": {"model": "cfo", "prompt": "x"},
    "/v1/responses": {"model": "cfo", "input": "x"},
    "/generate": {"inputs": "x", "parameters": {"adapter_id": "cfo"}},
    "/generate_stream": {"inputs": "x", "parameters": {"adapter_id": "cfo"}},
    "/": {"inputs": "x", "parameters": {"adapter_id": "cfo"}},
}


async def ask(http: httpx.AsyncClient, model: str, **more: Any) -> httpx.Response:
    body = {"model": model, "messages": [{"role": "user", "content": "How long?"}], **more}
    return await http.post("/v1/chat/completions", json=body)
