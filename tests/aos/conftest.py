"""A pool with one real worker process over the fake model, facades of it, and adapter folders for it."""

from __future__ import annotations

import asyncio
import json
import struct
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from lorapool.producer.aos import LoRAxConfig, LoRAxServer, MLConfig, MLPipelineManager
from lorapool.shared.digest import adapter_digest
from tests.fake_model import expected
from tests.fleet import WorkerProcess, fake_worker

MakeAdapter = Callable[..., Path]
Serve = Callable[..., LoRAxServer]
Manage = Callable[..., MLPipelineManager]


def text_of(prompt: str, folder: Path, count: int) -> str:
    """The text of a right answer of the adapter in that folder."""
    return "".join(f"{token} " for token in expected(prompt, adapter_digest(folder), count))


@pytest.fixture
def worker(redis_url: str) -> Iterator[WorkerProcess]:
    """Two slots, rows for eight, a step of a millisecond."""
    with fake_worker(redis_url, model={"step_s": 0.001}, slots=2, max_batch=8) as worker:
        yield worker


@pytest.fixture
def worker_later(redis_url: str) -> Iterator[Callable[[], WorkerProcess]]:
    """Starts such a worker when called."""
    with ExitStack() as stack:
        yield lambda: stack.enter_context(fake_worker(redis_url))


@pytest.fixture
def make_adapter(tmp_path: Path) -> MakeAdapter:
    """A folder that looks like a PEFT checkpoint; ``salt`` changes its content."""

    def make(name: str = "ceo", salt: str = "", base_model: str = "fake") -> Path:
        folder = tmp_path / f"{name}{salt}"
        folder.mkdir()
        config = {"peft_type": "LORA", "r": 4, "base_model_name_or_path": base_model, "salt": name + salt}
        (folder / "adapter_config.json").write_text(json.dumps(config))
        header = json.dumps({"w": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}).encode()
        (folder / "adapter_model.safetensors").write_bytes(struct.pack("<Q", len(header)) + header + b"\0\0\0\0")
        return folder

    return make


@pytest.fixture
async def serve(redis_url: str) -> AsyncIterator[Serve]:
    """Makes LoRAxServers of the pool, and stops them."""
    made: list[LoRAxServer] = []

    def make(**settings: Any) -> LoRAxServer:
        port = {"port": 0} if settings.get("spawn_local") else {}  # a free one
        made.append(LoRAxServer(LoRAxConfig(**{"base_model": "fake", "redis_url": redis_url, **port, **settings})))
        return made[-1]

    yield make
    for server in made:
        await server.stop()


@pytest.fixture
async def manage(redis_url: str) -> AsyncIterator[Manage]:
    """Makes MLPipelineManagers of the pool, and stops them."""
    made: list[MLPipelineManager] = []

    def make(**settings: Any) -> MLPipelineManager:
        made.append(
            MLPipelineManager(MLConfig(**{"lorax_base_model": "fake", "lorax_redis_url": redis_url, **settings}))
        )
        return made[-1]

    yield make
    for pipeline in made:
        await pipeline.stop_lorax_server()


@pytest.fixture
async def server(serve: Serve, worker: WorkerProcess) -> LoRAxServer:
    """Attached."""
    server = serve()
    assert await server.start(), server.last_error
    return server


@pytest.fixture
async def pipeline(manage: Manage, worker: WorkerProcess) -> MLPipelineManager:
    """Attached."""
    pipeline = manage()
    assert await pipeline.start_lorax_server(), pipeline.last_error
    return pipeline


async def eventually(wanted: Any, ask: Callable[[], Any]) -> Any:
    """What ``ask`` says once it says that, or after a while: workers tell what they hold with each beat."""
    for _ in range(400):
        if (answer := ask()) == wanted:
            return answer
        await asyncio.sleep(0.05)
    return ask()
