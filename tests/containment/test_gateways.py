"""What a client sees while gateways are killed and drained, and while Redis is away: no answer lost, no token twice."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from lorapool.producer.testing.canned import CannedPool
from tests.chaos.proxy import FaultProxy
from tests.fleet import until
from tests.length import at_length
from tests.producer.gateway.conftest import gateway
from tests.producer.gateway.events import chunks_of, content, events_of
from tests.producer.gateway.processes import gateway_process, where

ASK: dict[str, Any] = {"model": "cfo", "messages": [{"role": "user", "content": "How long?"}], "stream": True}
LONG = " ".join(f"word{number}" for number in range(100))


@pytest.fixture
def canned(redis_url: str) -> Iterator[CannedPool]:
    """A pool whose adapter cfo says a hundred words."""
    with CannedPool(redis_url) as pool:
        pool.answer("cfo", LONG)
        yield pool


async def test_a_gateway_killed_in_mid_stream(canned: CannedPool) -> None:
    """Killed with no warning: another replica goes on after the last event that arrived, and the text is whole."""
    canned.delay_s = 1.5
    with gateway_process(canned) as one, gateway_process(canned) as two:
        text = ""
        async with httpx.AsyncClient(base_url=await where(one), timeout=60) as http:
            try:
                async with http.stream("POST", "/v1/chat/completions", json=ASK) as answer:
                    async for part in answer.aiter_text():
                        text += part
                        if text.count("\n\n") == 20:
                            one.signal(signal.SIGKILL)
            except httpx.TransportError:
                pass
        had = events_of(text[: text.rindex("\n\n")])
        assert had[-1].data != "[DONE]"
        async with httpx.AsyncClient(base_url=await where(two), timeout=60) as http:
            last = {"Last-Event-ID": had[-1].id}
            rest = await http.post("/v1/chat/completions", json=ASK, headers=last)
        assert LONG == content([event.data for event in had] + chunks_of(rest.text))
    assert 1 == len(canned.requests)


async def test_a_gateway_told_to_end_lets_streams_end(canned: CannedPool) -> None:
    """SIGTERM: nothing new is taken, what runs ends, exit 0; what does not end in time is told where to go on."""
    canned.delay_s = 1.0
    with gateway_process(canned) as process:
        async with httpx.AsyncClient(base_url=await where(process), timeout=60) as http:
            asking = asyncio.create_task(http.post("/v1/chat/completions", json=ASK))
            await until(lambda: len(canned.requests) == 1)
            process.signal(signal.SIGTERM)
            assert LONG == content(chunks_of((await asking).text))
        assert 0 == process.wait()
    canned.delay_s = 30.0
    with gateway_process(canned, "--drain", "0") as process:
        async with httpx.AsyncClient(base_url=await where(process), timeout=60) as http:
            asking = asyncio.create_task(http.post("/v1/chat/completions", json=ASK))
            await until(lambda: len(canned.requests) == 2)
            process.signal(signal.SIGTERM)
            events = events_of((await asking).text)
        assert "shutting_down" == events[-1].data["error"]["code"]
        assert 0 == process.wait()
    async with canned.client() as client:
        assert not (await client.get(canned.requests[1].job_id).state()).terminal


async def test_redis_away(canned: CannedPool) -> None:
    """What is under way waits it out, streams and answers; what is new is waited with for a while, then it is 503."""
    canned.delay_s = at_length(1.0, 5.0)
    port = int(canned.redis_url.rpartition(":")[2].partition("/")[0])
    async with (
        FaultProxy(port) as proxy,
        gateway(canned, redis_url=proxy.url, away_s=0.3) as url,
        httpx.AsyncClient(base_url=url, timeout=120) as http,
    ):
        stream = asyncio.create_task(http.post("/v1/chat/completions", json=ASK))
        whole = asyncio.create_task(http.post("/v1/chat/completions", json={**ASK, "stream": False}))
        await until(lambda: len(canned.requests) == 2)
        await _away(proxy)
        refused = await http.post("/v1/chat/completions", json=ASK)
        assert 503 == (await http.get("/health")).status_code
        await asyncio.sleep(at_length(1.0, 10.0))
        await _back(proxy)
        assert LONG == content(chunks_of((await stream).text))
        assert LONG == (await whole).json()["choices"][0]["message"]["content"]
        assert 200 == (await http.post("/v1/chat/completions", json=ASK)).status_code
    assert (503, "queue_unreachable", "2") == (
        refused.status_code,
        refused.json()["error"]["code"],
        refused.headers["retry-after"],
    )
    assert 3 == len(canned.requests)


async def _away(proxy: FaultProxy) -> None:
    """Every connection is reset, and new ones are refused."""
    proxy._server.close()
    proxy.cut()


async def _back(proxy: FaultProxy) -> None:
    port = int(proxy.url.rpartition(":")[2].partition("/")[0])
    proxy._server = await asyncio.start_server(proxy._join, "127.0.0.1", port)
