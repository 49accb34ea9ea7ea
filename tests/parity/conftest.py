"""Seeds and counts of the parity suites; what was excused is printed at the end of the session by tests/conftest.py."""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Iterator
from dataclasses import asdict

import pytest

from tests.audit import audited
from tests.length import at_length
from tests.parity.verdict import Tally

__all__ = ["audited"]

SEED = int(os.environ.get("LORAPOOL_PARITY_SEED") or random.SystemRandom().randrange(2**31))
EXAMPLES = int(os.environ.get("LORAPOOL_PARITY_EXAMPLES") or at_length(4, 6))


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """Two threads take longer than one over matrices of this size."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def tally(record_property: Callable[[str, object], None]) -> Iterator[Tally]:
    """Counts of this test; they travel with its report, also from pytest-xdist's processes."""
    counted = Tally()
    yield counted
    record_property("parity", {"seed": SEED, **asdict(counted)})
