"""What the demo keeps running for a reader of the quick start: a server, and a worker on the real model."""

from __future__ import annotations

import asyncio
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from examples.base_model import prepare
from lorapool.shared.server.redis_client import connect
from lorapool.shared.server.settings import redis_settings
from tests.conftest import running_server
from tests.e2e.conftest import ADAPTERS, register_all
from tests.fleet import CEILING_S, alive, real_worker, until

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


@pytest.fixture(scope="session")
def docs_http(docs_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of a gateway of it, with the five adapters of the demo registered."""
    folder = tmp_path_factory.mktemp("gateway")
    said = folder / "said.txt"
    program = str(Path(sys.executable).parent / "lorapool")
    command = [program, "gateway", "--port", "0", "--files", str(folder / "files")]
    with said.open("wb") as out:
        gateway = subprocess.Popen([*command, "--redis-url", docs_url], stdout=out, stderr=out)
    try:
        asyncio.run(register_all(docs_url, WORKER))
        yield asyncio.run(_listening(said))
    finally:
        gateway.terminate()
        assert 0 == gateway.wait(CEILING_S), said.read_text()


async def _listening(said: Path) -> str:
    match = await until(lambda: re.search(r"http://[\d.]+:\d+", said.read_text()))
    return str(match[0])


async def _alive(url: str) -> None:
    redis = connect(redis_settings(url))
    await alive(redis, WORKER, timeout_s=250)
    await redis.aclose()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A scratch folder in which `examples` is the checkout's, as it is for who reads in the checkout."""
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    return tmp_path
