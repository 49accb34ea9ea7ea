"""A client of the pool that a test's ``worker`` serves."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from redis.asyncio import Redis

from lorapool.producer import Client
from tests.fleet import WorkerProcess, alive


@pytest.fixture
async def pool(redis_url: str, redis: Redis, worker: WorkerProcess) -> AsyncIterator[Client]:
    await alive(redis, worker.name)
    async with Client(redis_url) as pool:
        yield pool
