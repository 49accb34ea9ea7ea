"""A gateway on a pool with canned answers, and openai's client in front of it: no socket between them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager

import httpx
import pytest

from lorapool.producer.client.client import Client
from lorapool.producer.gateway.app import create_app
from lorapool.producer.gateway.settings import GatewaySettings
from lorapool.producer.testing import CannedPool


@pytest.fixture
def pool(redis_url: str) -> Iterator[CannedPool]:
    """Its base model and its CFO have something to say."""
    with CannedPool(redis_url) as pool:
        pool.answer("cfo", "We have eighteen months of runway.", aliases=["CFO"])
        yield pool


@pytest.fixture
async def client(pool: CannedPool) -> AsyncIterator[Client]:
    async with pool.client() as client:
        yield client


@pytest.fixture
async def http(client: Client) -> AsyncIterator[httpx.AsyncClient]:
    async with asking(client) as http:
        yield http


@asynccontextmanager
async def asking(client: Client, **settings: float) -> AsyncIterator[httpx.AsyncClient]:
    """A gateway of its own in front of that client."""
    app = create_app(client, GatewaySettings(**settings))
    transport = httpx.ASGITransport(app=app)
    async with httpx.AsyncClient(transport=transport, base_url="http://gateway") as http:
        yield http
