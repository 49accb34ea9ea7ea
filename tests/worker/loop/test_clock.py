"""The server's clock, carried by the local one."""

from __future__ import annotations

from lorapool.worker.loop.clock import ServerClock


def test_runs_on_between_observations() -> None:
    """Time passes at the local rate from the last observation of the server's, whatever the local clock shows."""
    local_s = [500.0]
    clock = ServerClock(lambda: local_s[0])
    clock.observe(1_000_000)
    local_s[0] += 1.5
    assert 1_001_500 == clock.now_ms()
    clock.observe(1_001_400)
    assert 1_001_400 == clock.now_ms()
