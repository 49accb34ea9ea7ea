"""One gateway on the pool with the real worker, for the whole session."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from tests.clients.running import gateway
from tests.e2e.conftest import RealPool, base_model, real_pool, real_server

__all__ = ["base_model", "gateway_url", "real_pool", "real_server"]


collect_ignore = [] if os.environ.get("LORAPOOL_CLIENTS") else ["test_clients.py"]


@pytest.fixture(scope="session")
def gateway_url(real_pool: RealPool, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with gateway(real_pool.url, tmp_path_factory.mktemp("files")) as (url, _):
        yield url
