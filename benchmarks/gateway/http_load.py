"""A client that costs little: HTTP/1.1 over kept connections, one request after another on each, for all doors alike.

``python -m benchmarks.gateway.http_load ROLE --address HOST:PORT --body JSON …`` in a process of its own, so that it
shares no interpreter with what it measures. Figures go to standard output as JSON lines. ``volley``: so many requests
over so many connections; ``streams``: one streamed request a connection, all at once.
"""

from __future__ import annotations

import argparse
import asyncio
import re
import time
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

import uvloop

from benchmarks.queue_peers.contest import say

HEAD_END, CHUNKS_END = b"\r\n\r\n", b"0\r\n\r\n"
_LENGTH = re.compile(rb"content-length: *(\d+)", re.IGNORECASE)
_WORDS = re.compile(rb'"(?:content|text)": ?"[^"]')
GIVE_UP_S = 300.0


@dataclass(slots=True)
class Answer:
    """Of one request. Times since it was sent, in seconds; ``first_text_s``: the first that says something."""

    status: int
    seconds: float
    first_s: float
    first_text_s: float | None
    body: bytes


class Connection(asyncio.Protocol):
    """One request at a time."""

    def __init__(self) -> None:
        self._transport: asyncio.Transport | None = None
        self._answer: asyncio.Future[Answer] | None = None
        self._buffer = bytearray()
        self._sent_s = self._first_s = 0.0
        self._first_text_s: float | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport) or hasattr(transport, "write")
        self._transport = transport  # type: ignore[assignment]  # uvloop's is no subclass of asyncio's

    def connection_lost(self, error: Exception | None) -> None:
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(error or ConnectionResetError("the server closed the connection"))

    async def ask(self, request: bytes) -> Answer:
        """Send it, and wait for the whole answer."""
        assert self._transport is not None
        self._buffer.clear()
        self._first_s, self._first_text_s = 0.0, None
        self._answer = asyncio.get_running_loop().create_future()
        self._sent_s = time.perf_counter()
        self._transport.write(request)
        return await self._answer

    def data_received(self, data: bytes) -> None:
        now_s = time.perf_counter() - self._sent_s
        buffer = self._buffer
        buffer += data
        head = buffer.find(HEAD_END)
        if head < 0 or self._answer is None or self._answer.done():
            return
        body = head + len(HEAD_END)
        if not self._first_s and len(buffer) > body:
            self._first_s = now_s
        if self._first_text_s is None and _WORDS.search(data):
            self._first_text_s = now_s
        length = _LENGTH.search(buffer, 0, head)
        if len(buffer) - body >= int(length[1]) if length else buffer.endswith(CHUNKS_END):
            status = int(buffer[9:12])
            self._answer.set_result(Answer(status, now_s, self._first_s, self._first_text_s, bytes(buffer[body:])))

    def close(self) -> None:
        if self._transport is not None:
            self._transport.close()


def request_of(address: str, path: str, body: str) -> bytes:
    """As it is sent."""
    content = body.encode()
    head = (
        f"POST {path} HTTP/1.1\r\nhost: {address}\r\ncontent-type: application/json\r\nauthorization: Bearer none\r\n"
    )
    return f"{head}content-length: {len(content)}\r\n\r\n".encode() + content


async def connected(address: str, count: int) -> list[Connection]:
    """So many, kept open."""
    host, _, port = address.rpartition(":")
    loop = asyncio.get_running_loop()
    opened = [await loop.create_connection(Connection, host, int(port)) for _ in range(count)]
    return [connection for _, connection in opened]


async def volley(arguments: argparse.Namespace) -> None:
    """A closed loop: each connection asks again when it is answered."""
    request = request_of(arguments.address, arguments.path, arguments.body)
    connections = await connected(arguments.address, arguments.connections)
    await asyncio.gather(*(_good(connection, request) for connection in connections))  # all is loaded and compiled
    left, times = arguments.requests, list[float]()

    async def work(connection: Connection) -> None:
        nonlocal left
        while left > 0:
            left -= 1
            times.append((await _good(connection, request)).seconds)

    began_s = time.perf_counter()
    await asyncio.gather(*map(work, connections))
    seconds = time.perf_counter() - began_s
    times.sort()
    say(requests_s=len(times) / seconds, p50_ms=1000 * median(times), p99_ms=1000 * at(times, 0.99), count=len(times))


async def streams(arguments: argparse.Namespace) -> None:
    """All at once, on connections that are open."""
    request = request_of(arguments.address, arguments.path, arguments.body)
    connections = await connected(arguments.address, arguments.connections)
    if arguments.requests:
        await _good(connections[0], request)
    began_s = time.perf_counter()
    outcomes = await asyncio.gather(*(connection.ask(request) for connection in connections), return_exceptions=True)
    seconds = time.perf_counter() - began_s
    whole = [each for each in outcomes if isinstance(each, Answer) and each.status == 200 and b"[DONE]" in each.body]
    first = sorted(each.first_s for each in whole)
    text = sorted(each.first_text_s for each in whole if each.first_text_s is not None)
    events = sum(each.body.count(b"data: ") for each in whole)
    say(
        whole=len(whole),
        seconds=seconds,
        events_s=events / seconds,
        first_p50_ms=1000 * median(first or [0]),
        first_p99_ms=1000 * at(first, 0.99),
        first_text_p50_ms=1000 * median(text or [0]),
        first_text_p99_ms=1000 * at(text, 0.99),
        failures=[repr(each)[:200] for each in outcomes if each not in whole][:3],
    )


async def _good(connection: Connection, request: bytes) -> Answer:
    answer = await asyncio.wait_for(connection.ask(request), GIVE_UP_S)
    assert answer.status == 200, answer.body[:500]
    return answer


def at(ordered: Sequence[float], share: float) -> float:
    """The quantile of sorted values."""
    return ordered[int(share * (len(ordered) - 1))] if ordered else 0.0


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("role", choices=["volley", "streams"])
    parser.add_argument("--address", required=True)
    parser.add_argument("--path", default="/v1/chat/completions")
    parser.add_argument("--body", required=True)
    parser.add_argument("--connections", type=int, default=32)
    parser.add_argument("--requests", type=int, default=2000)
    arguments = parser.parse_args()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run({"volley": volley, "streams": streams}[arguments.role](arguments))


if __name__ == "__main__":
    main()
