"""The gateway that a facade opens beside workers of its own, and AOS's OpenAI-shaped client through it."""

from __future__ import annotations

import asyncio
import json
import socket
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from lorapool.producer.aos import HttpChatClient, LoRAxServer, RequestRefused
from lorapool.shared.errors import InvalidRequest
from tests.aos.conftest import MakeAdapter, Serve, text_of
from tests.aos.test_local_workers import PROGRAM

MESSAGES = [{"role": "user", "content": "hello"}]


def posted(url: str, body: dict[str, Any]) -> dict[str, Any]:
    request = urllib.request.Request(url, json.dumps(body).encode(), {"content-type": "application/json"})
    with urllib.request.urlopen(request) as answer:
        reply: dict[str, Any] = json.load(answer)
    return reply


async def test_own_workers_bring_a_gateway(serve: Serve, tmp_path: Path, make_adapter: MakeAdapter) -> None:
    """It answers as the pool does; it is gone once the facade has stopped."""
    server = serve(spawn_local=1, worker_command=PROGRAM, adapter_base_path=str(tmp_path))
    assert await server.start(), server.last_error
    assert server.last_error is None
    ceo = make_adapter("ceo")
    server.registry.register_adapter("ceo", "CEO", str(ceo))
    await server.start()
    assert server.url is not None and server.url.startswith("http://127.0.0.1:")
    body = {"model": "ceo", "prompt": "hello", "max_tokens": 4}
    reply = await asyncio.to_thread(posted, f"{server.url}/v1/completions", body)
    assert text_of("hello", ceo, 4) == reply["choices"][0]["text"]
    agent = HttpChatClient(f"{server.url}/v1")
    with pytest.raises(RequestRefused, match="nobody") as refused:
        await agent.complete(MESSAGES, extra_body={"persona": "nobody"})
    assert 404 == refused.value.status
    assert await server.stop()
    with pytest.raises(OSError, match="refused"):
        await agent.complete(MESSAGES)


async def test_a_port_that_is_taken_is_told(serve: Serve, tmp_path: Path) -> None:
    """The facade serves all the same, and its last error names host, port and reason."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        server = serve(spawn_local=1, worker_command=PROGRAM, adapter_base_path=str(tmp_path), port=port)
        assert await server.start()
    assert f"port = {port}: no gateway can listen there" in str(server.last_error)
    assert server.url is None


async def test_a_facade_of_a_fleet_opens_none(server: LoRAxServer) -> None:
    """The fleet has its own."""
    assert server.url is None


def test_a_base_url_that_is_none_is_told() -> None:
    with pytest.raises(InvalidRequest, match=r"base_url = 'file:///etc'"):
        HttpChatClient("file:///etc")
