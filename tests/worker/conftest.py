"""What the worker's tests share: one thread for tiny tensors, and an audit of every engine at the end."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.audit import audited

__all__ = ["audited"]


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """Two threads take longer than one over matrices of this size, and far longer on a machine that is busy."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
