"""A pool of its own for every test, a client on it, and a canned worker at work."""

from __future__ import annotations

import asyncio
import json
import secrets
import struct
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from typer.testing import CliRunner
from typer.testing import Result as Outcome

from lorapool.producer import Client
from lorapool.producer.cli import app
from tests.producer.canned_worker import CannedWorker, serving


@pytest.fixture
def pool_name() -> str:
    return f"t-{secrets.token_hex(4)}"


@pytest.fixture
async def client(redis_url: str, pool_name: str) -> AsyncIterator[Client]:
    async with Client(redis_url, pool=pool_name) as client:
        yield client


@pytest.fixture
async def worker(redis_url: str, pool_name: str) -> AsyncIterator[CannedWorker]:
    async with serving(redis_url, pool_name) as worker:
        yield worker


@pytest.fixture
def threaded_worker(redis_url: str, pool_name: str) -> Iterator[None]:
    """A canned worker in a thread of its own."""
    with in_a_thread(redis_url, pool_name):
        yield


@contextmanager
def in_a_thread(redis_url: str, pool_name: str, **options: float) -> Iterator[None]:
    """A canned worker at work in a thread of its own."""
    loop = asyncio.new_event_loop()
    stop, ready = asyncio.Event(), threading.Event()

    async def serve() -> None:
        async with serving(redis_url, pool_name, **options):
            ready.set()
            await stop.wait()

    thread = threading.Thread(target=lambda: loop.run_until_complete(serve()))
    thread.start()
    ready.wait(10)
    try:
        yield
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join()
        loop.close()


@pytest.fixture
def run(redis_url: str, pool_name: str) -> Callable[..., Outcome]:
    """``run("submit", "cfo", …)`` in this process, on a pool of its own, piped, 80 columns or none."""

    def run(*arguments: str, columns: int | None = None, **more: str) -> Outcome:
        env = {"LORAPOOL_REDIS_URL": redis_url, "LORAPOOL_POOL": pool_name, **more}
        env |= {"COLUMNS": str(columns)} if columns else {}
        return CliRunner().invoke(app, list(arguments), env=env)

    return run


@pytest.fixture
def make_adapter(tmp_path: Path) -> Callable[..., Path]:
    """A folder that looks like a PEFT checkpoint; ``salt`` changes its content."""

    def make(name: str = "cfo", salt: str = "") -> Path:
        folder = tmp_path / f"{name}{salt}"
        folder.mkdir()
        config = {"peft_type": "LORA", "r": 4, "base_model_name_or_path": "tiny", "salt": salt}
        (folder / "adapter_config.json").write_text(json.dumps(config))
        header = json.dumps({"w": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}).encode()
        (folder / "adapter_model.safetensors").write_bytes(struct.pack("<Q", len(header)) + header + b"\0\0\0\0")
        return folder

    return make
