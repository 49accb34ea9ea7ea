"""Books on the real, empty server of the test, with a clock that the test sets."""

from __future__ import annotations

import secrets
from typing import Any

import pytest
from redis.asyncio import Redis

from lorapool.shared.batches.batch_book import BatchBook, Lease, Part
from lorapool.shared.batches.batch_record import BatchRecord, BatchStatus
from lorapool.shared.batches.file_book import FileBook
from lorapool.shared.batches.file_record import FileRecord
from lorapool.shared.connection import PoolConnection

NOW = 1_800_000_000_000
CLOCK = "lp:{test}:clock"
LEASE_MS = 15_000


class Books:
    """Both books, their clock, and short words for what most tests do."""

    def __init__(self, redis: Redis) -> None:
        self.redis = redis
        connection = PoolConnection(redis, "test", clock=CLOCK)
        self.files, self.batches = FileBook(connection), BatchBook(connection)

    async def set_clock(self, now: int) -> None:
        await self.redis.set(CLOCK, now)

    async def file(self, agent: str = "ada", *, purpose: str = "batch", whole: bool = True) -> FileRecord:
        name = f"file-{secrets.token_hex(4)}"
        record = FileRecord(id=name, agent=agent, filename="a.jsonl", name=f"files/{name}")
        await self.files.begin(record)
        return await self.files.end(record.id, purpose=purpose, size=7, sha256="ab") if whole else record

    async def batch(self, agent: str = "ada", **fields: Any) -> BatchRecord:
        fields = {"input_file": (await self.file(agent)).id, "window_s": 60, "endpoint": "/v1/completions", **fields}
        batch = BatchRecord(id=f"batch_{secrets.token_hex(4)}", agent=agent, status=BatchStatus.VALIDATING, **fields)
        return await self.batches.add(batch)

    async def taken(self, holder: str = "g1") -> Lease:
        lease = await self.batches.take(holder, LEASE_MS)
        assert lease is not None
        return lease


def part(*lines: int, name: str = "p", **fields: Any) -> Part:
    return Part(**{"name": name, "lines": lines, "completed": len(lines), "failed": 0, **fields})


@pytest.fixture
async def books(redis: Redis) -> Books:
    books = Books(redis)
    await books.set_clock(NOW)
    return books
