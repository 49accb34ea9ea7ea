"""Dramatiq: threads, with its result backend on the same server."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

import dramatiq
from dramatiq.brokers.redis import RedisBroker
from dramatiq.results import Results
from dramatiq.results.backends import RedisBackend

from benchmarks.queue_peers.contest import DrainClock, main


class Dramatiq:
    """``threads`` None: as many as the concurrency asked for."""

    def __init__(self, threads: int | None = None) -> None:
        self._threads = threads

    def enqueue(self, url: str, jobs: int) -> float:
        noop, _ = _actors(url)
        noop.logger.disabled = True
        began = time.perf_counter()
        for _ in range(jobs):
            noop.send()
        return time.perf_counter() - began

    def work(self, url: str, concurrency: int, clock: DrainClock) -> None:
        lock = threading.Lock()

        def tick() -> None:
            with lock:
                clock.tick()

        noop, _ = _actors(url, tick)
        dramatiq.Worker(noop.broker, worker_threads=self._threads or concurrency).start()
        threading.Event().wait()

    def stored(self, url: str) -> int:
        client = RedisBackend(url=url).client
        return sum(1 for _ in client.scan_iter("?" * 32, count=1000))  # a result's key is an MD5 in hex

    def round_trips(self, url: str, count: int) -> list[float]:
        _, echo = _actors(url)
        backend, milliseconds = RedisBackend(url=url), []
        for number in range(count):
            began = time.perf_counter()
            answer = echo.send(number).get_result(backend=backend, block=True, timeout=30_000)
            milliseconds.append((time.perf_counter() - began) * 1000)
            assert answer == number
        return milliseconds


def _actors(url: str, tick: Callable[[], object] = time.time) -> tuple[Any, Any]:
    broker = RedisBroker(url=url)
    broker.add_middleware(Results(backend=RedisBackend(url=url)))

    def noop() -> int:
        tick()
        return 1  # a None is not stored

    def echo(number: int) -> int:
        return number

    return _actor(broker, noop), _actor(broker, echo)


def _actor(broker: RedisBroker, function: Callable[..., int]) -> Any:
    return dramatiq.actor(function, broker=broker, store_results=True)


if __name__ == "__main__":
    main(Dramatiq())
