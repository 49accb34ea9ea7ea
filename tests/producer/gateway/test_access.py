"""Who gets in at the gateway: every route with no key, with a wrong one, and on a pool without keys."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import httpx
import pytest

from lorapool.producer.gateway.server import serve
from lorapool.producer.gateway.settings import GatewaySettings
from lorapool.shared.errors import InvalidRequest
from tests.producer.gateway.guarded import WRONG, Door, locked

# -- no key, a wrong key


@pytest.mark.parametrize("headers", [
    {},
    {"authorization": f"Bearer {WRONG}"},
    {"authorization": "Bearer "},
    {"authorization": "Bearer sk-something"},
    {"authorization": f"Basic {WRONG}"},
    {"authorization": "Bearer \xff\xfe"},
    {"x-api-key": WRONG},
    {"api-key": WRONG},
])  # fmt: skip
async def test_every_route_asks_for_a_key(door: Door, headers: dict[str, str]) -> None:
    """Without one, with a wrong one, with another scheme: 401 as OpenAI's API says it, whatever the route."""
    await door.client.keys.add("board-7")
    asked = locked(door.app)
    assert len(asked) > 10
    async with door.asking() as http:
        raw = {name: value.encode("latin-1") for name, value in headers.items()}
        for method, path in asked:
            answer = await http.request(method, path, headers=raw)
            assert (401, "Bearer") == (answer.status_code, answer.headers.get("www-authenticate")), (method, path)
            if method != "HEAD":
                assert "invalid_api_key" == answer.json()["error"]["code"]


async def test_health_is_open(door: Door) -> None:
    """To everybody, also while there are keys."""
    await door.client.keys.add("board-7")
    assert 200 == await door.status(path="/health", client=("203.0.113.9", 1))


async def test_a_key_is_never_taken_from_an_address(door: Door) -> None:
    secret = await door.client.keys.add("board-7")
    for name in ("api_key", "api-key", "key", "access_token", "authorization"):
        assert 401 == await door.status(path=f"/v1/models?{name}={secret}")


@pytest.mark.parametrize(
    "path", ["/console/../v1/models", "//health", "/health/", "/v1/../health", "/Health", "/consoles"]
)
async def test_no_path_leads_around(door: Door, path: str) -> None:
    """What looks open but is not the open path itself is locked, or leads to nothing."""
    await door.client.keys.add("board-7")
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    async def receive() -> Any:
        return {"type": "http.request"}

    scope = {
        "type": "http",
        "method": "GET",
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
        "root_path": "",
    }
    await door.app({**scope, "headers": [], "client": ("127.0.0.1", 1), "scheme": "http"}, receive, send)
    assert sent[0]["status"] in {307, 401, 404}
    assert not [message for message in sent if b"ceo" in message.get("body", b"")]


@pytest.mark.parametrize("header", ["authorization", "x-api-key", "api-key"])
async def test_a_right_key_is_let_in(door: Door, header: str) -> None:
    """By each of the headers that clients use."""
    secret = await door.client.keys.add("board-7")
    value = f"Bearer {secret}" if header == "authorization" else secret
    async with door.asking(client=("203.0.113.9", 1), base_url="https://llm.example.com") as http:
        assert 200 == (await http.get("/v1/models", headers={header: value})).status_code


async def test_secrets_are_not_logged(door: Door, caplog: pytest.LogCaptureFixture, capfd: Any) -> None:
    """Neither right ones nor wrong ones, nor told again."""
    secret = await door.client.keys.add("board-7")
    with caplog.at_level(logging.DEBUG):
        async with door.asking() as http:
            for given in (secret, WRONG, "sk-mine"):
                answer = await http.get("/v1/nothing", headers={"authorization": f"Bearer {given}"})
                assert given not in answer.text
    said = caplog.text + "".join(capfd.readouterr())
    assert not [given for given in (secret, WRONG, "sk-mine") if given in said]


# -- a pool without keys


async def test_without_keys_this_machine_may_ask(door: Door) -> None:
    """Whatever key its clients make up; nothing is asked of them."""
    for base in ("http://127.0.0.1:8080", "http://localhost:8080", "http://[::1]:8080", "http://pool.localhost"):
        assert 200 == await door.status("sk-anything", base_url=base)
    assert 200 == await door.status(client=("::1", 1))


@pytest.mark.parametrize("options", [
    {"client": ("203.0.113.9", 1)},
    {"client": ("testclient", 1)},
    {"base_url": "http://evil.example"},
    {"base_url": "http://127.0.0.1.evil.example"},
    {"headers": {"origin": "https://evil.example"}},
    {"headers": {"origin": "null"}},
    {"headers": {"host": ""}},
])  # fmt: skip
async def test_without_keys_nobody_else_may(door: Door, options: dict[str, Any]) -> None:
    """Neither from afar, nor a page of a stranger's in this machine's browser, nor under a stranger's name."""
    headers = options.pop("headers", {})
    async with door.asking(**options) as http:
        answer = await http.get("/v1/models", headers=headers)
    assert (403, "no_keys") == (answer.status_code, answer.json()["error"]["code"])
    assert "lorapool keys add" in answer.json()["error"]["message"]


async def test_a_pool_that_had_keys_stays_closed(door: Door) -> None:
    """The last key is revoked: it does not open to everybody."""
    secret = await door.client.keys.add("board-7")
    await door.client.keys.revoke("board-7")
    assert (401, 401) == (await door.status(), await door.status(secret))


async def test_without_keys_strangers_are_not_listened_to(door: Door) -> None:
    """A host that others reach is refused; with a key it is served."""
    settings = GatewaySettings(host="0.0.0.0", port=0)
    with pytest.raises(InvalidRequest, match="lorapool keys add"):
        await serve(door.client, settings)
    await door.client.keys.add("board-7")
    listening: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    serving = asyncio.create_task(serve(door.client, settings, ready=listening.set_result))
    url = await asyncio.wait_for(listening, 30)
    async with httpx.AsyncClient(base_url=url) as http:
        assert 401 == (await http.get("/v1/models")).status_code
    serving.cancel()
    with pytest.raises(asyncio.CancelledError):
        await serving
