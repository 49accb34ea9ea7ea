"""A real server with the ACL rules of docs/trust.md, for two pools, and who comes in by them."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from redis import Redis

from tests.conftest import running_server
from tests.fleet import WorkerProcess, fake_worker

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs/trust.md"
CFO = ROOT / "examples/adapters/cfo"
POOL, OTHER = "acme", "beta"


def rules(pool: str) -> dict[str, str]:
    """Role → its line of the page's ACL file, for that pool."""
    block = re.search(r"```text\n(user default off\n.*?)```", PAGE.read_text(), re.DOTALL)
    assert block, f"{PAGE} shows no ACL file"
    lines = [line.replace(POOL, pool) for line in block[1].splitlines()]
    return {line.split()[1].removeprefix(f"{pool}-"): line for line in lines}


ROLES = [role for role in rules(POOL) if role != "default"]


def url_of(server: str, role: str, pool: str = POOL) -> str:
    """How that role comes in; the page's passwords are ``<role>-password``."""
    return f"redis://{pool}-{role}:{role}-password@{server}/0"


def denied(admin: Any) -> list[str]:
    """What the server denied: whom, and what; but for the look for an older layout's keys, which a pool's users cannot
    see (the page says so)."""
    older = f"lp:{{{POOL}.0}}:"
    return [
        f"{entry['username']}: {entry['reason']} {entry['object']} in {entry['context']}"
        for entry in admin.acl_log()
        if not entry["object"].startswith(older)
    ]


def wait_for(condition: Callable[[], bool], timeout_s: float = 30) -> None:
    """As ``until``, where no event loop runs."""
    give_up_at = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < give_up_at, f"not within {timeout_s} s"
        time.sleep(0.1)


@pytest.fixture(scope="session")
def acl_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Yields ``host:port``."""
    lines = {*rules(POOL).values(), *rules(OTHER).values(), "user admin on >admin ~* &* +@all"}
    path = tmp_path_factory.mktemp("acl") / "users.acl"
    path.write_text("\n".join(sorted(lines)) + "\n")
    with running_server("--maxmemory-policy", "noeviction", "--aclfile", str(path)) as url:
        yield url.removeprefix("redis://").partition("/")[0]


@pytest.fixture
def admin(acl_server: str) -> Iterator[Any]:
    """The administrator; the server is empty, and so is its log of what was denied."""
    with Redis.from_url(f"redis://admin:admin@{acl_server}", decode_responses=True) as admin:
        admin.flushall()
        admin.acl_log_reset()
        yield admin


@pytest.fixture
def server(acl_server: str, admin: Any) -> str:
    """``host:port`` of the server, empty."""
    return acl_server


@pytest.fixture
def worker(server: str, admin: Any) -> Iterator[WorkerProcess]:
    """A real worker process with a worker's password, alive."""
    with fake_worker(url_of(server, "worker"), "w1", environment={"LORAPOOL_POOL": POOL}, pool=POOL) as worker:
        wait_for(lambda: bool(admin.exists(f"lp:{{{POOL}}}:worker:w1")))
        yield worker
