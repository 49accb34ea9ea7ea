"""A console over a pool of the test's own, asked as a browser asks it; adapters that the canned worker serves."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from typing import Any

import pytest
import uvicorn
from httpx import ASGITransport, AsyncClient, Response
from redis.asyncio import Redis
from starlette.applications import Starlette
from starlette.routing import Mount

from lorapool.producer import Client
from lorapool.producer.console.app import create_console
from lorapool.shared.catalog.catalog import AdapterRecord
from tests.conftest import free_port
from tests.fleet import until
from tests.parts import catalog_of

HERE = "http://127.0.0.1:8080"
Add = Callable[..., Awaitable[str]]


class Browser(AsyncClient):
    """Its posts say where they come from, as a browser's do."""

    async def send_form(self, path: str, fields: Mapping[str, Any] | None = None, **options: Any) -> Response:
        headers = {"origin": HERE, "sec-fetch-site": "same-origin"}
        return await self.post(path, data=dict(fields or {}), headers=headers, **options)


def app_of(client: Client) -> Starlette:
    return Starlette(routes=[Mount("/console", create_console(client))])


@pytest.fixture
async def console(client: Client) -> AsyncIterator[Browser]:
    async with Browser(transport=ASGITransport(app_of(client)), base_url=HERE) as browser:
        yield browser


@pytest.fixture
def add_adapter(redis: Redis, pool_name: str) -> Add:
    """A version that is ready at once; returns its ref."""
    catalog = catalog_of(redis, pool_name)

    async def add(
        name: str = "cfo", version: str = "1", aliases: Sequence[str] = (), ready: bool = True, **more: Any
    ) -> str:
        digest = f"{abs(hash((name, version))):064x}"[-64:]
        record = AdapterRecord(
            id=name, version=version, digest=digest, uri=f"file:///{name}", aliases=tuple(aliases), **more
        )
        await catalog.register(record)
        if ready:
            await catalog.decide(record.ref, "ready")
        return record.ref

    return add


@pytest.fixture
async def served(client) -> AsyncIterator[Browser]:
    port = free_port()
    server = uvicorn.Server(uvicorn.Config(app_of(client), port=port, lifespan="off", log_config=None, ws="none"))
    task = asyncio.create_task(server.serve())
    await until(lambda: server.started)
    try:
        async with Browser(base_url=f"http://127.0.0.1:{port}", timeout=20) as browser:
            yield browser
    finally:
        server.should_exit = True
        await task
