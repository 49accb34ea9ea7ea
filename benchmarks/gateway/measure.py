"""The measurements, each a figure of one turn; who takes turns with whom, and how often, is __main__.py's."""

from __future__ import annotations

import asyncio
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import psutil

from benchmarks.gateway.doors import Door
from benchmarks.queue.ours import AGENT, adapter_name
from benchmarks.queue.processes import ProcessFailed, ask, talking
from benchmarks.rounds import Failed
from lorapool.producer.client.client import Client
from lorapool.shared.job import Result

LOAD, PAIRS = "benchmarks.gateway.http_load", "benchmarks.gateway.pairs"
WITHIN_S = 300.0


def latencies(door: Door, count: int) -> tuple[list[float], list[float]]:
    """Milliseconds of a job by the Python client, and of the same job over HTTP, pair by pair."""
    heard = ask(
        sys.executable, PAIRS, "run", "http_ms", redis_url=door.redis_url, address=door.address, body=door.body(),
        count=count,
    )  # fmt: skip
    return heard["client_ms"], heard["http_ms"]


@dataclass
class Requests:
    """Requests a second of a door, and what a request took of CPU time in the process that serves HTTP."""

    door: Door
    connections: int
    requests: int

    def __post_init__(self) -> None:
        self.cpu_us: list[float] = []
        self.p50_ms: list[float] = []

    def run(self) -> float:
        before_s = _cpu_s(self.door.pid)
        heard = _volley(self.door, connections=self.connections, requests=self.requests)
        served = self.requests + self.connections  # those that warm it up
        self.cpu_us.append(1e6 * (_cpu_s(self.door.pid) - before_s) / served)
        self.p50_ms.append(heard["p50_ms"])
        return float(heard["requests_s"])


def streams(door: Door, count: int, tokens: int) -> dict[str, Any]:
    """So many streams at once: first chunk, first word, whether all came whole, and memory at its highest."""
    body = door.body(stream=True, max_tokens=tokens)
    idle_mib, before_s = door.rss_mib(), _cpu_s(door.pid)
    with _highest(door) as highest, _load("streams", door, body, connections=count, requests=1) as load:
        heard = load.hear("whole", WITHIN_S)
    if heard["whole"] != count:
        raise Failed(f"{count - heard['whole']} of {count} streams did not come whole: {heard['failures']}")
    return {**heard, "idle_mib": idle_mib, "highest_mib": max(highest), "cpu_s": _cpu_s(door.pid) - before_s}


async def chat_volley(door_url: str, bodies: list[str]) -> float:
    """Seconds until all of these chats are answered, each on a connection of its own."""
    from benchmarks.gateway.http_load import connected, request_of

    address = door_url.removeprefix("http://")
    connections = await connected(address, len(bodies))
    began = time.perf_counter()
    requests = [request_of(address, "/v1/completions", body) for body in bodies]
    answers = await asyncio.gather(*(each.ask(request) for each, request in zip(connections, requests, strict=True)))
    seconds = time.perf_counter() - began
    for connection in connections:
        connection.close()
    if bad := [answer for answer in answers if answer.status != 200]:
        raise Failed(bad[0].body.decode(errors="replace")[:300])
    return seconds


async def warmed(redis_url: str) -> None:
    """The worker has answered once."""
    async with Client(redis_url, agent=AGENT) as client:
        result = await (await client.submit(adapter_name(0), "x", max_new_tokens=1)).result(timeout=60)
        assert isinstance(result, Result)


def _volley(door: Door, *, connections: int, requests: int) -> dict[str, Any]:
    with _load("volley", door, door.body(), connections=connections, requests=requests) as load:
        heard: dict[str, Any] = load.hear("requests_s", WITHIN_S)
        return heard


@contextmanager
def _load(role: str, door: Door, body: str, **options: Any) -> Iterator[Any]:
    try:
        with talking(sys.executable, LOAD, role, address=door.address, body=body, **options) as load:
            yield load
    except ProcessFailed as error:
        raise Failed(str(error)) from None


def _cpu_s(pid: int) -> float:
    own = psutil.Process(pid)
    return float(sum(sum(one.cpu_times()[:2]) for one in (own, *own.children(recursive=True))))


@contextmanager
def _highest(door: Door) -> Iterator[list[float]]:
    """What memory was seen, ten times a second."""
    seen, over = [door.rss_mib()], threading.Event()

    def look() -> None:
        while not over.wait(0.1):
            seen.append(door.rss_mib())

    thread = threading.Thread(target=look)
    thread.start()
    try:
        yield seen
    finally:
        over.set()
        thread.join()
