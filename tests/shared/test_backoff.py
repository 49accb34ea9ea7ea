"""How long to wait before trying again."""

from __future__ import annotations

from itertools import islice

from lorapool.shared.backoff import LONGEST_S, backoff, jittered


def test_pauses_double_up_to_the_longest() -> None:
    """Each is at least half of what it doubled to, and at most all of it."""
    for doubled_s, pause_s in zip((0.05, 0.1, 0.2, 0.4, 0.8, 1.6, 2.0, 2.0), islice(backoff(), 8), strict=True):
        assert doubled_s / 2 <= pause_s <= doubled_s <= LONGEST_S


def test_no_two_keep_step() -> None:
    """Jitter: of a hundred pauses of one length hardly two are alike."""
    assert 95 < len({jittered(1.0) for _ in range(100)})
