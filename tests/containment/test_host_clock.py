"""A maintenance host whose clock is an hour ahead does its chores like any other, and silences nobody's."""

from __future__ import annotations

import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

from tests.fleet import WorkerProcess, started, until
from tests.machine import Meanwhile
from tests.worker.maintenance.test_maintenance import CHORES, QUICK, maintenance, ticks

AHEAD_S = 3600
PROGRAM = f"""
import time
real, real_ns = time.time, time.time_ns
time.time, time.time_ns = lambda: real() + {AHEAD_S}, lambda: real_ns() + {AHEAD_S * 10**9}
from lorapool.worker.cli import main
main()
"""


@contextmanager
def ahead(redis_url: str) -> Iterator[WorkerProcess]:
    command = [sys.executable, "-c", PROGRAM, "maintenance", "--redis-url", redis_url, *QUICK, "--log-level", "debug"]
    with started(command, "ahead") as process:
        yield process


async def test_a_host_whose_clock_is_an_hour_ahead(redis_url: str) -> None:
    """Alone it does every chore at the server's ticks; killed, another goes on at once."""
    with ahead(redis_url) as first:
        await until(lambda: {chore for chore, _ in ticks(first)} == CHORES)
        assert max(tick_ms for _, tick_ms in ticks(first)) <= 1000 * (time.time() + 60)
        with maintenance(redis_url) as second:
            await until(lambda: second.events("ready"))
            first.signal(signal.SIGKILL)
            before, meanwhile = time.monotonic(), Meanwhile()
            await until(lambda: {chore for chore, _ in ticks(second)} == CHORES)
            assert time.monotonic() - before < 25 * meanwhile.slowdown()  # a chore that was under way counts for 15 s
            done = ticks(first, second)
            assert {1} == set(done.values())
            assert 0 == second.stop()
