"""What every peer does, and how it tells: enqueue N no-op jobs, drain them, answer one after another.

Runs inside the peer's own venv, so it knows the standard library only. A peer module calls ``main``; each figure
goes to standard output as one JSON line.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Awaitable, Callable, Iterator
from typing import Protocol

ENQUEUE_WIDTH = 64  # calls in flight of an asyncio client


class Peer(Protocol):
    """One queue. Every method blocks."""

    def enqueue(self, url: str, jobs: int) -> float:
        """Seconds to enqueue ``jobs`` no-op jobs, once connected."""

    def work(self, url: str, concurrency: int, clock: DrainClock) -> None:
        """Run one worker for ever; the no-op handler calls ``clock.tick``."""

    def stored(self, url: str) -> int:
        """Results of no-op jobs that the server keeps."""

    def round_trips(self, url: str, count: int) -> list[float]:
        """Milliseconds from enqueue to result, one job at a time, on an idle worker."""


class DrainClock:
    """Measures from the first to the last of ``jobs`` handler calls, and says so on the last."""

    def __init__(self, jobs: int) -> None:
        self._jobs, self._calls, self._began = jobs, 0, 0.0

    def tick(self) -> None:
        if not self._calls:
            self._began = time.perf_counter()
        self._calls += 1
        if self._calls == self._jobs:
            say(drained=self._calls, seconds=time.perf_counter() - self._began)


def main(peer: Peer) -> None:
    """``enqueue | work | stored | round-trips``, with ``--redis-url``, ``--count`` and ``--concurrency``."""
    parser = argparse.ArgumentParser()
    parser.add_argument("role", choices=["enqueue", "work", "stored", "round-trips"])
    parser.add_argument("--redis-url", required=True)
    parser.add_argument("--count", type=int, default=0)
    parser.add_argument("--concurrency", type=int, default=32)
    arguments = parser.parse_args()
    url = arguments.redis_url
    if arguments.role == "enqueue":
        say(enqueued=arguments.count, seconds=peer.enqueue(url, arguments.count))
    elif arguments.role == "work":
        peer.work(url, arguments.concurrency, DrainClock(arguments.count))
    elif arguments.role == "stored":
        say(stored=peer.stored(url))
    else:
        say(milliseconds=peer.round_trips(url, arguments.count))


def say(**facts: object) -> None:
    """One JSON line for whoever started us."""
    print(json.dumps(facts), flush=True)


async def in_waves(jobs: int, enqueue: Callable[[], Awaitable[object]]) -> float:
    """Seconds for ``jobs`` calls of ``enqueue``, ``ENQUEUE_WIDTH`` at a time."""
    from asyncio import gather

    began = time.perf_counter()
    for width in _widths(jobs):
        await gather(*(enqueue() for _ in range(width)))
    return time.perf_counter() - began


async def one_by_one(count: int, round_trip: Callable[[int], Awaitable[object]]) -> list[float]:
    """Milliseconds of each round trip; its answer must be the number it was given."""
    milliseconds = []
    for number in range(count):
        began = time.perf_counter()
        answer = await round_trip(number)
        milliseconds.append((time.perf_counter() - began) * 1000)
        assert answer == number, f"asked {number}, got {answer!r}"
    return milliseconds


def _widths(jobs: int) -> Iterator[int]:
    full, rest = divmod(jobs, ENQUEUE_WIDTH)
    yield from [ENQUEUE_WIDTH] * full
    if rest:
        yield rest
