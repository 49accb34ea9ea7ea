"""Batches fed in this process, in a folder of their own, by a canned worker."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from lorapool.producer import Client
from lorapool.producer.batches.batch_run import Pace
from lorapool.producer.batches.feeder import Feeder
from lorapool.producer.batches.files import Files
from lorapool.producer.batches.store import FileStore, store_at
from lorapool.shared.batches.batch_record import BatchRecord, BatchStatus
from lorapool.shared.tasks import cancel_and_wait
from tests.fleet import until
from tests.producer.batches.plain_door import ENDPOINT, PlainDoor

QUICK = Pace(lease_s=2.0, poll_s=0.02, part_s=0.02, keep_s=60.0, at_once=64)


def line(custom_id: str, prompt: str | None = "hi", **body: Any) -> dict[str, Any]:
    asked = {"model": None, **({} if prompt is None else {"prompt": prompt}), **body}
    return {"custom_id": custom_id, "method": "POST", "url": ENDPOINT, "body": asked}


def jsonl(lines: Iterable[dict[str, Any]]) -> bytes:
    return b"".join(json.dumps(each).encode() + b"\n" for each in lines)


class Desk:
    """Where a test hands batches in, and reads what came of them."""

    def __init__(self, client: Client, store: FileStore) -> None:
        self.client, self.store, self.files = client, store, Files(client.files, store)

    async def put(self, content: bytes, agent: str = "ada") -> str:
        async def pieces() -> AsyncIterator[bytes]:
            yield content

        return (await self.files.put(agent, "in.jsonl", pieces())).id

    async def batch(self, content: bytes, agent: str = "ada", **fields: Any) -> BatchRecord:
        made = {"window_s": 3600, "endpoint": ENDPOINT, "status": BatchStatus.VALIDATING, **fields}
        file_id = await self.put(content, agent)
        name = f"batch_{file_id.removeprefix('file-')}"
        return await self.client.batches.add(BatchRecord(id=name, agent=agent, input_file=file_id, **made))

    async def ended(self, batch: BatchRecord) -> BatchRecord:
        async def end() -> BatchRecord | None:
            now = await self.client.batches.get(batch.id)
            return now if now.status.terminal and not now.holder else None

        found: BatchRecord = await until(end)
        return found

    async def read(self, file_id: str | None) -> list[dict[str, Any]]:
        if file_id is None:
            return []
        record = await self.client.files.get(file_id)
        content = b"".join([piece async for piece in self.files.content(record)])
        assert record.bytes == len(content)
        return [json.loads(text) for text in content.splitlines()]

    @asynccontextmanager
    async def fed(self, pace: Pace = QUICK, name: str = "") -> AsyncIterator[Feeder]:
        feeder = Feeder(self.client, self.files, PlainDoor(), pace=pace, name=name)
        task = asyncio.create_task(feeder.run())
        try:
            yield feeder
        finally:
            await cancel_and_wait(task)


@pytest.fixture
def location(tmp_path: Path) -> str:
    return str(tmp_path / "files")


@pytest.fixture
def desk(client: Client, location: str) -> Desk:
    return Desk(client, store_at(location))
