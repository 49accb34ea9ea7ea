"""A call that never returns costs its caller a while, and nobody else anything."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from lorapool.shared.errors import AdapterUnavailable, CheckpointError
from lorapool.worker.confinement.bounded_call import MAX_LEFT, BoundedCall


@pytest.fixture
def go_on() -> Iterator[threading.Event]:
    event = threading.Event()
    yield event
    event.set()


def test_what_returns_is_handed_on_and_what_raises_too():
    """Also a timeout of its own."""

    def call(number: int) -> int:
        if number < 0:
            raise CheckpointError("negative") if number < -1 else TimeoutError("of its own")
        return number + 1

    bounded = BoundedCall(call, 10, "counting")
    assert 2 == bounded(1)
    with pytest.raises(CheckpointError, match="negative"):
        bounded(-2)
    with pytest.raises(TimeoutError, match="of its own"):
        bounded(-1)


def test_what_hangs_is_left_behind(go_on):
    """It is this worker's trouble; the next call is made."""
    bounded: BoundedCall[str, object] = BoundedCall(
        lambda path: go_on.wait(30) if path == "hung" else path, 0.05, "reading an adapter"
    )
    with pytest.raises(AdapterUnavailable, match=r"reading an adapter: not done within 0\.05 s"):
        bounded("hung")
    assert "sound" == bounded("sound")


def test_only_so_many_are_left_behind(go_on):
    """Then the rest fail at once, until one comes back."""
    bounded: BoundedCall[str, object] = BoundedCall(lambda _: go_on.wait(30), 0.01, "reading an adapter")
    for _ in range(MAX_LEFT):
        with pytest.raises(AdapterUnavailable, match="not done"):
            bounded("hung")
    with pytest.raises(AdapterUnavailable, match=f"{MAX_LEFT} others hang"):
        bounded("hung")
