"""The keys and the audit stream of the bench's queue."""

from __future__ import annotations

import pytest

from lorapool.shared.access.audit import Audit
from lorapool.shared.access.key_book import KeyBook
from tests.shared.conftest import Bench


@pytest.fixture
def keys(bench: Bench) -> KeyBook:
    return KeyBook(bench.queue.connection)


@pytest.fixture
def audit(bench: Bench) -> Audit:
    return Audit(bench.queue.connection.partition())
