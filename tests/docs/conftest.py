"""What the demo keeps running for a reader of the quick start: a server, and a worker on the real model."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from examples.base_model import prepare
from lorapool.shared.server.redis_client import connect
from lorapool.shared.server.settings import redis_settings
from tests.conftest import running_server
from tests.e2e.conftest import ADAPTERS
from tests.fleet import alive, real_worker

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
WORKER = "docs-worker"


@pytest.fixture(scope="session")
def docs_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of the server; its worker may read adapters from the checkout and from the tests' folders."""
    roots = ("--adapter-root", str(ADAPTERS), "--adapter-root", str(tmp_path_factory.getbasetemp()))
    with (
        running_server("--maxmemory-policy", "noeviction") as url,
        real_worker(url, "--slots", "3", *roots, name=WORKER, base_model=prepare()),
    ):
        asyncio.run(_alive(url))
        yield url.removesuffix("/0")


async def _alive(url: str) -> None:
    redis = connect(redis_settings(url))
    await alive(redis, WORKER, timeout_s=250)
    await redis.aclose()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A scratch folder in which `examples` is the checkout's, as it is for who reads in the checkout."""
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    return tmp_path
