"""A gateway on a free port over a pool with canned answers, and a client of it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import httpx
import pytest

from lorapool.producer.client.client import Client
from lorapool.producer.gateway.app import create_app
from lorapool.producer.gateway.server import serve
from lorapool.producer.gateway.settings import GatewaySettings
from lorapool.producer.testing.canned import CannedPool
from lorapool.shared.tasks import cancel_and_wait
from tests.producer.gateway.guarded import Door

RUNWAY = "Our runway is eighteen months."


@pytest.fixture
def canned(redis_url: str) -> Iterator[CannedPool]:
    """cfo@1, alias money, and the base model `canned`."""
    with CannedPool(redis_url) as pool:
        pool.answer("cfo", RUNWAY, aliases=["money"])
        pool.answer(None, "The base model says so.")
        yield pool


@asynccontextmanager
async def gateway(pool: CannedPool, *, redis_url: str = "", **changes: Any) -> AsyncIterator[str]:
    """Its URL; ``redis_url``: its own way to the pool's server."""
    where: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    settings = replace(GatewaySettings(port=0, drain_s=1.0), **changes)
    async with Client(redis_url or pool.redis_url, pool=pool.name) as client:
        serving = asyncio.create_task(serve(client, settings, ready=where.set_result))
        await asyncio.wait((where, serving), return_when=asyncio.FIRST_COMPLETED)
        try:
            yield where.result() if where.done() else serving.result()
        finally:
            await cancel_and_wait(serving)


@pytest.fixture
async def url(canned: CannedPool) -> AsyncIterator[str]:
    async with gateway(canned) as url:
        yield url


@pytest.fixture
async def http(url: str) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=url, timeout=60) as client:
        yield client


@pytest.fixture
def pool(redis_url: str) -> Iterator[CannedPool]:
    """cfo@1, alias money; ceo@1; and the base model."""
    with CannedPool(redis_url) as pool:
        pool.answer("cfo", "Eighteen months.", aliases=["money"])
        pool.answer("ceo", "Onwards.")
        pool.answer(None, "I am the base model.")
        yield pool


@pytest.fixture
async def door(pool: CannedPool, tmp_path: Any) -> AsyncIterator[Door]:
    async with pool.client() as client:
        yield Door(client, create_app(client, GatewaySettings(files=str(tmp_path))))
