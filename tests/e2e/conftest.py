"""One real server and one real worker on the real base model for the whole session, with the five trained adapters."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from examples.base_model import prepare
from lorapool.producer.client.client import Client
from lorapool.shared.server.redis_client import connect
from lorapool.shared.server.settings import redis_settings
from tests.conftest import running_server
from tests.e2e.peft_reference import PeftReference
from tests.fleet import WorkerProcess, alive, real_worker

ADAPTERS = Path(__file__).parents[2] / "examples" / "adapters"
NAMES = ("ceo", "cfo", "cmo", "coo", "cto")
CONTEXT = 512  # tokens: short, so that a prompt can be too long


@dataclass(frozen=True)
class RealPool:
    """Where it is, who serves it, and a folder that its worker may read adapters from."""

    url: str
    worker: WorkerProcess
    adapter_root: Path


@pytest.fixture(scope="session")
def base_model() -> Path:
    """SmolLM2-135M-Instruct as a plain checkpoint."""
    return prepare()


@pytest.fixture(scope="session")
def real_server() -> Iterator[str]:
    """A server that no other test empties."""
    with running_server("--maxmemory-policy", "noeviction") as url:
        yield url


@pytest.fixture(scope="session")
def real_pool(real_server: str, base_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealPool]:
    """The pool `default`: two slots, the five adapters registered."""
    root = tmp_path_factory.mktemp("adapters")
    limits = ("--slots", "2", "--max-batch", "16", "--max-model-len", str(CONTEXT), "--starvation", "60")
    roots = ("--adapter-root", str(ADAPTERS), "--adapter-root", str(root))
    with real_worker(real_server, *limits, *roots, base_model=base_model) as worker:
        asyncio.run(register_all(real_server, "w1"))
        yield RealPool(real_server, worker, root)
        assert worker.stop() == 0


@pytest.fixture(scope="session")
def reference(base_model: Path) -> PeftReference:
    """The oracle, with all five adapters."""
    return PeftReference(base_model, ADAPTERS, NAMES)


async def register_all(url: str, worker: str, pool: str = "default") -> None:
    """Wait for the worker, then register the five adapters with it."""
    redis = connect(redis_settings(url))
    await alive(redis, worker, pool, timeout_s=250)
    await redis.aclose()
    async with Client(url, pool=pool) as client:
        for name in NAMES:
            await client.adapters.register(name, ADAPTERS / name, aliases=[name.upper()])


@pytest.fixture
async def pool(real_pool: RealPool) -> AsyncIterator[Client]:
    """A client of the session's pool."""
    async with Client(real_pool.url) as client:
        yield client
