"""Gateways, workers and the server are killed in the middle of a batch: each line is answered once all the same."""

from __future__ import annotations

import asyncio
import json
import re
import signal
import sys
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from lorapool.producer import Client
from lorapool.shared.batches.batch_record import BatchRecord
from lorapool.shared.server.redis_client import connect
from lorapool.shared.server.settings import redis_settings
from tests.chaos.server import DurableServer, durable_server
from tests.fake_model import expected
from tests.fleet import WorkerProcess, alive, fake_worker, started, until
from tests.length import at_length

LINES = at_length(400, 20_000)
TOKENS = 3
BRIEF, LONG = ("gateway", "server"), ("gateway", "worker", "server", "gateway", "worker")
CEILING_S = at_length(60.0, 900.0)


class Place:
    """A server that keeps what it says, two gateways over one folder, two workers; each can be killed."""

    def __init__(self, server: DurableServer, folder: Path, stack: ExitStack) -> None:
        self.server, self._folder, self._stack = server, folder, stack
        self.gateways: dict[str, WorkerProcess] = {}
        self.workers: dict[str, WorkerProcess] = {}
        self._names = (f"p{number}" for number in range(100))

    async def start(self) -> None:
        await self.server.start()
        for _ in range(2):
            self.start_gateway()
            self.start_worker()
        redis = connect(redis_settings(self.server.url))
        for name in self.workers:
            await alive(redis, name)
        await redis.aclose()

    def start_gateway(self) -> None:
        program, name = str(Path(sys.executable).parent / "lorapool"), next(self._names)
        flags = ["--port", "0", "--files", str(self._folder), "--batch-lease", "1", "--redis-url", self.server.url]
        self.gateways[name] = self._stack.enter_context(started([program, "gateway", *flags], name))

    def start_worker(self) -> None:
        name, model = next(self._names), {"step_s": 0.02}
        process = fake_worker(self.server.url, name, model, lease_s=2.0, max_batch=64)
        self.workers[name] = self._stack.enter_context(process)

    async def url(self) -> str:
        """Of a gateway that serves."""

        def said() -> str | None:
            logs = [gateway.log() for gateway in self.gateways.values()]
            found = [match[1] for log in logs if (match := re.search(r"(http://127\S+)/v1", log))]
            return found[-1] if found else None

        return str(await until(said))

    async def kill(self, kind: str, batch: BatchRecord) -> None:
        """SIGKILL; another comes, but for the batch's holder only in the long form."""
        if kind == "server":
            await self.server.stop()
            await self.server.start()
        elif kind == "gateway":
            by_pid = {str(gateway.process.pid): name for name, gateway in self.gateways.items()}
            name = by_pid[batch.holder.rpartition("-")[2]]
            await end(self.gateways.pop(name))
            self.start_gateway()
        else:
            await end(self.workers.pop(next(iter(self.workers))))
            self.start_worker()


async def end(process: WorkerProcess) -> None:
    process.signal(signal.SIGKILL)
    await asyncio.to_thread(process.wait)


@asynccontextmanager
async def place(folder: Path) -> AsyncIterator[Place]:
    with durable_server("always") as server, ExitStack() as stack:
        made = Place(server, folder, stack)
        await made.start()
        yield made


def line(number: int) -> bytes:
    body = {"model": "fake", "prompt": f"question {number}", "max_tokens": TOKENS}
    record = {"custom_id": f"q{number}", "method": "POST", "url": "/v1/completions", "body": body}
    return json.dumps(record).encode() + b"\n"


async def submitted(url: str) -> str:
    async with httpx.AsyncClient(base_url=url, timeout=60) as http:
        content = b"".join(map(line, range(LINES)))
        file = (await http.post("/v1/files", files={"file": ("in", content)}, data={"purpose": "batch"})).json()
        fields = {"input_file_id": file["id"], "endpoint": "/v1/completions", "completion_window": "24h"}
        return str((await http.post("/v1/batches", json=fields)).json()["id"])


async def read(url: str, file_id: str) -> list[dict[str, Any]]:
    async with httpx.AsyncClient(base_url=url, timeout=60) as http:
        return [json.loads(text) for text in (await http.get(f"/v1/files/{file_id}/content")).text.splitlines()]


async def answered(client: Client, share: float) -> bool:
    return (await client.stats(None)).get("succeeded", 0) >= share * LINES


async def held(client: Client, batch_id: str) -> BatchRecord | None:
    batch = await client.batches.get(batch_id)
    return batch if batch.holder or batch.status.terminal else None


@pytest.mark.timeout(CEILING_S * 2)
async def test_a_batch_outlives_whatever_is_killed(tmp_path: Path) -> None:
    """The gateway that feeds it, a worker, the server, one after another in mid-batch: each line stands once in the
    output, with the answer of its own prompt, and none was asked twice."""
    kills = at_length(len(BRIEF), len(LONG))
    async with place(tmp_path / "files") as here, Client(here.server.url) as client:
        batch_id = await submitted(await here.url())
        for number, kind in enumerate((BRIEF, LONG)[kills == len(LONG)], 1):
            await until(lambda number=number: answered(client, number / (kills + 1)), CEILING_S)
            await here.kill(kind, await until(lambda: held(client, batch_id)))
        batch = await until(lambda: ended(client, batch_id), CEILING_S)
        assert ("completed", LINES, LINES, 0) == (batch.status, batch.total, batch.completed, batch.failed)
        output = await read(await here.url(), batch.output_file)
        texts = {each["custom_id"]: each["response"]["body"]["choices"][0]["text"] for each in output}
        assert {f"q{number}": answer(number) for number in range(LINES)} == texts
        assert [] == [name for name, times in Counter(each["custom_id"] for each in output).items() if times > 1]
        assert (LINES, batch.error_file) == ((await client.stats(None))["submitted"], None)


def answer(number: int) -> str:
    return "".join(f"{token} " for token in expected(f"question {number}", "", TOKENS))


async def ended(client: Client, batch_id: str) -> BatchRecord | None:
    batch = await client.batches.get(batch_id)
    return batch if batch.status.terminal else None
