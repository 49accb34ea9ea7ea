"""Bodies too large, too slow or malformed; connections that are held and not used: each meets a bound."""

from __future__ import annotations

import asyncio
import json
import resource
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, suppress
from typing import Any

import httpx
import psutil
import pytest

from lorapool.producer.testing.canned import CannedPool
from lorapool.shared.errors import JobCancelled
from tests.fleet import until
from tests.producer.gateway.conftest import RUNWAY, gateway
from tests.producer.gateway.processes import gateway_process, where

ASK: dict[str, Any] = {"model": "cfo", "messages": [{"role": "user", "content": "How long?"}]}
PATH = "/v1/chat/completions"


async def test_large_bodies_are_refused(canned: CannedPool) -> None:
    """413, whether the size is announced or comes out, and nothing is queued; just within it is taken."""

    async def chunks(size: int) -> AsyncIterator[bytes]:
        for _ in range(0, size, 1000):
            yield b" " * 1000

    async with gateway(canned, max_body_bytes=50_000) as url, httpx.AsyncClient(base_url=url) as http:
        announced = await http.post(PATH, content=b" " * 50_001)
        counted = await http.post(PATH, content=chunks(60_000))
        for refused in (announced, counted):
            assert (413, "request_too_large") == (refused.status_code, refused.json()["error"]["code"])
        fits = json.dumps(ASK).ljust(50_000)
        assert 200 == (await http.post(PATH, content=fits)).status_code
    assert 1 == len(canned.requests)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b'"x"',
        b"NaN",
        b'{"a": Infinity}',
        b"\xff\xfe",
        b"[" * 100_000,
        b'{"a":' * 100_000,
        b'{"seed": ' + b"9" * 5000 + b"}",
        json.dumps({**ASK, "messages": [{"role": "user", "content": "\ud800"}]}).encode(),
        json.dumps({**ASK, "model": "cfo\0"}).encode(),
        json.dumps({**ASK, "stop": "\ud800"}).encode(),
        json.dumps({**ASK, "user": "\ud800"}).encode(),
    ],
    ids=lambda body: repr(body[:20]),
)
def test_malformed_bodies(body: bytes, malformed: Any) -> None:
    """400 or 404 in the API's form, or an answer; never a 5xx."""
    answer = malformed(body)
    assert answer.status_code < 500
    if answer.status_code != 200:
        assert answer.json()["error"]["message"]


@pytest.fixture(scope="module")
def malformed(redis_server: str) -> Any:
    """Sends a body to one gateway for all of them."""
    loop = asyncio.new_event_loop()
    stack = AsyncExitStack()
    pool = CannedPool(redis_server)

    async def begin() -> httpx.AsyncClient:
        pool.answer("cfo", RUNWAY)
        url = await stack.enter_async_context(gateway(pool))
        return await stack.enter_async_context(httpx.AsyncClient(base_url=url, timeout=60))

    with pool:
        http = loop.run_until_complete(begin())
        yield lambda body: loop.run_until_complete(http.post(PATH, content=body))
        loop.run_until_complete(stack.aclose())
    loop.close()


async def connected(url: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    host, _, port = url.removeprefix("http://").partition(":")
    return await asyncio.open_connection(host, int(port))


@pytest.mark.parametrize(
    "begun", [b"", b"POST /v1/chat/completions HTTP/1.1\r\nx: ", b"GET /health HTTP/1.1\r\n\r\nGET /h"]
)
async def test_half_a_request_is_cut_off(canned: CannedPool, begun: bytes) -> None:
    """A connection that never completes its headers ends by itself, also after a complete request."""
    async with gateway(canned, slow_s=0.3) as url:
        reader, writer = await connected(url)
        writer.write(begun)
        async with asyncio.timeout(60):
            await _closed(reader)
        writer.close()


async def test_a_body_that_trickles_is_cut_off(canned: CannedPool) -> None:
    """408 after a while, not a handler that waits for ever."""
    async with gateway(canned, slow_s=0.3) as url:
        reader, writer = await connected(url)
        writer.write(b"POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\ncontent-length: 99\r\n\r\n{")
        async with asyncio.timeout(60):
            assert b" 408 " in await reader.readline()
        writer.close()


async def test_headers_without_end_are_cut_off(canned: CannedPool) -> None:
    """However fast they come."""
    async with gateway(canned) as url:
        reader, writer = await connected(url)
        writer.write(b"GET / HTTP/1.1\r\n")
        with pytest.raises(ConnectionError):
            await _flood(writer)
        writer.close()
        del reader


async def _flood(writer: asyncio.StreamWriter) -> None:
    for _ in range(10_000):
        writer.write(b"x: " + b"y" * 1000 + b"\r\n")
        await writer.drain()
        await asyncio.sleep(0)


async def test_more_connections_than_are_taken(canned: CannedPool) -> None:
    """The next is closed at once; one of those there still serves; once they have gone there is room again."""
    async with gateway(canned, max_connections=20) as url:
        held = [await connected(url) for _ in range(20)]
        over, writer = await connected(url)
        async with asyncio.timeout(60):
            await _closed(over)
        writer.close()
        reader, first = held[0]
        first.write(b"GET /health HTTP/1.1\r\nhost: localhost\r\n\r\n")
        assert b" 200 " in await reader.readline()
        for _, each in held:
            each.close()
        async with httpx.AsyncClient(base_url=url) as http:
            await _served(http)


async def _closed(reader: asyncio.StreamReader) -> None:
    """Reads until its end."""
    with suppress(ConnectionError):
        while await reader.read(4096):
            pass


async def _served(http: httpx.AsyncClient) -> None:
    async with asyncio.timeout(60):
        while True:
            with suppress(httpx.TransportError):
                answer = await http.get("/health")
                break
            await asyncio.sleep(0.05)
    assert 200 == answer.status_code


@pytest.mark.long
async def test_ten_thousand_half_open_connections(canned: CannedPool) -> None:
    """They cost the gateway little memory, and who asks properly is answered meanwhile."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    try:
        with gateway_process(canned, "--slow", "120", "--max-connections", "10100") as process:
            url, memory = await where(process), psutil.Process(process.process.pid)
            before = memory.memory_info().rss
            held = [await connected(url) for _ in range(10_000)]
            for _, writer in held:
                writer.write(b"POST /v1/chat/completions HTTP/1.1\r\nx: ")
            async with httpx.AsyncClient(base_url=url, timeout=60) as http:
                answer = await http.post(PATH, json=ASK)
            assert RUNWAY == answer.json()["choices"][0]["message"]["content"]
            assert memory.memory_info().rss - before < 10_000 * 20_000
            assert not any(reader.at_eof() for reader, _ in held), "the gateway closed some of them"
            for _, writer in held:
                writer.close()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.parametrize(("hard", "raised"), [(9000, 8192 + 256), (3000, 3000)])
async def test_files_for_all_connections(canned: CannedPool, hard: int, raised: int) -> None:
    """A shell's limit of open files is raised to what the connections need; where it may not be, a warning says so."""
    few = ("sh", "-c", f'ulimit -Sn 256; ulimit -Hn {hard}; exec "$@"', "sh")
    with gateway_process(canned, before=few) as process:
        await where(process)
        assert (raised, hard) == psutil.Process(process.process.pid).rlimit(psutil.RLIMIT_NOFILE)
        warned = process.events("few_open_files")
        assert [hard] * (raised == hard) == [event["limit"] for event in warned]


async def test_a_client_that_never_reads(canned: CannedPool) -> None:
    """Its connection is cut off and its job called back; what it does not take does not pile up in the gateway."""
    canned.answer("cfo", " ".join(["x" * 200_000] * 400))
    canned.delay_s = 20
    body = json.dumps({**ASK, "stream": True}).encode()
    with gateway_process(canned, "--slow", "0.5") as process:
        url, gateway_memory = await where(process), psutil.Process(process.process.pid)
        before = gateway_memory.memory_info().rss
        reader, writer = await connected(url)
        writer.transport.pause_reading()
        head = f"POST {PATH} HTTP/1.1\r\nhost: localhost\r\ncontent-length: {len(body)}\r\n\r\n".encode()
        writer.write(head + body)
        await until(lambda: canned.requests)
        async with canned.client() as client:
            with pytest.raises(JobCancelled):
                await client.get(canned.requests[0].job_id).result(60)
        assert gateway_memory.memory_info().rss - before < 64 << 20
        writer.close()
        del reader
