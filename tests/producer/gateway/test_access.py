"""Who may ask the gateway: every route as nobody, with a wrong key, and with another agent's."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import httpx
import pytest
from starlette.applications import Starlette
from starlette.routing import BaseRoute, Mount, Route

from lorapool.producer.client.client import Client
from lorapool.producer.gateway.access import BELIEVED_S, MAX_WRONG, KnownKeys
from lorapool.producer.gateway.app import create_app
from lorapool.producer.gateway.server import serve
from lorapool.producer.gateway.settings import GatewaySettings
from lorapool.producer.testing import CannedPool
from lorapool.shared.access.key_book import KeyBook
from lorapool.shared.errors import InvalidRequest, RedisUnreachable

WRONG = "lp-" + "w" * 43


@dataclass
class Door:
    """A gateway and its pool."""

    client: Client
    app: Starlette

    @asynccontextmanager
    async def asking(self, secret: str = "", **options: Any) -> AsyncIterator[httpx.AsyncClient]:
        headers = {"authorization": f"Bearer {secret}"} if secret else {}
        transport = httpx.ASGITransport(app=self.app, client=options.pop("client", ("127.0.0.1", 1)))
        base = options.pop("base_url", "http://127.0.0.1:8080")
        async with httpx.AsyncClient(transport=transport, base_url=base, headers=headers, **options) as http:
            yield http

    async def status(self, secret: str = "", path: str = "/v1/models", **options: Any) -> int:
        async with self.asking(secret, **options) as http:
            return (await http.get(path)).status_code


@pytest.fixture
def pool(redis_url: str) -> Iterator[CannedPool]:
    with CannedPool(redis_url) as pool:
        pool.answer("cfo", "Eighteen months.", aliases=["money"])
        pool.answer("ceo", "Onwards.")
        pool.answer(None, "I am the base model.")
        yield pool


@pytest.fixture
async def door(pool: CannedPool, tmp_path: Any) -> AsyncIterator[Door]:
    async with pool.client() as client:
        yield Door(client, create_app(client, GatewaySettings(files=str(tmp_path))))


def routes(of: list[BaseRoute], prefix: str = "") -> Iterator[tuple[str, str]]:
    """(method, path) of all, whatever they are mounted below."""
    for route in of:
        if isinstance(route, Mount):
            yield from routes(list(route.routes), prefix + route.path)
        else:
            assert isinstance(route, Route)
            yield from ((method, prefix + route.path) for method in sorted(route.methods or {"GET"}))


def filled(path: str) -> str:
    """With something for each parameter."""
    parts = (f"x{part.partition('}')[2]}" if "}" in part else part for part in path.split("{"))
    return "".join(parts)


def locked(app: Starlette) -> list[tuple[str, str]]:
    """All but what is open, and the console, which has its own door."""
    return [
        (m, filled(path)) for m, path in routes(app.routes) if path != "/health" and not path.startswith("/console")
    ]


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


# -- what a key may


async def ask(http: httpx.AsyncClient, model: str, **more: Any) -> httpx.Response:
    body = {"model": model, "messages": [{"role": "user", "content": "How long?"}], **more}
    return await http.post("/v1/chat/completions", json=body)


async def test_a_key_asks_its_adapters_alone(door: Door) -> None:
    """Others do not exist for it: by id, ref or alias, and the base model; nor are they told of."""
    secret = await door.client.keys.add("board-7", adapters=["ce*"])
    async with door.asking(secret) as http:
        assert {"ceo", "ceo@1"} == {model["id"] for model in (await http.get("/v1/models")).json()["data"]}
        assert 200 == (await ask(http, "ceo")).status_code
        base = (await door.client.config()).base_model
        for name in ("cfo", "cfo@1", "money", "_base", base, "cfu", "nobody"):
            answer = await ask(http, name)
            assert (404, "model_not_found") == (answer.status_code, answer.json()["error"]["code"]), name
            assert not {"cfo", "money"} & set(answer.json()["error"]["message"].replace(f"'{name}'", "").split())
            assert 404 == (await http.get(f"/v1/models/{name}")).status_code


ASKING: dict[str, dict[str, Any]] = {
    "/v1/chat/completions": {"model": "cfo", "messages": [{"role": "user", "content": "x"}]},
    "/v1/completions": {"model": "cfo", "prompt": "x"},
    "/v1/responses": {"model": "cfo", "input": "x"},
    "/generate": {"inputs": "x", "parameters": {"adapter_id": "cfo"}},
    "/generate_stream": {"inputs": "x", "parameters": {"adapter_id": "cfo"}},
    "/": {"inputs": "x", "parameters": {"adapter_id": "cfo"}},
}
NOT_ASKING = {"/v1/files", "/v1/batches", "/v1/{path:path}"}  # a batch asks line by line


async def test_every_door_heeds_a_keys_adapters(door: Door, pool: CannedPool) -> None:
    """Whatever posts a job: another's adapter is 404, streamed or not, and nothing reaches the pool. A new route that
    asks has to be named in ASKING."""
    posting = {path for method, path in routes(door.app.routes) if method == "POST" and "/{id}" not in path}
    assert set(ASKING) == {path for path in posting if not path.startswith("/console")} - NOT_ASKING
    async with door.asking(await door.client.keys.add("board-7", adapters=["ce*"])) as http:
        for path, body in ASKING.items():
            for more in ({}, {"stream": True}) if path.startswith("/v1") else ({},):
                answer = await http.post(path, json={**body, **more})
                assert 404 == answer.status_code, (path, answer.text)
                assert "money" not in answer.text
    assert [] == pool.requests


async def test_a_closed_adapter_of_others_is_not_told_of(door: Door) -> None:
    """An alias that the key may ask, of an adapter that it may not."""
    await door.client.adapters.alias("chief", "cfo@1")
    await door.client.upkeep._queue.close_adapter("cfo@1")
    secret = await door.client.keys.add("board-7", adapters=["ch*"])
    async with door.asking(secret) as http:
        answer = await ask(http, "chief")
    assert (404, False) == (answer.status_code, "cfo" in answer.text)


async def test_jobs_are_counted_under_the_keys_agent(door: Door, pool: CannedPool) -> None:
    """And charged to the key."""
    secret = await door.client.keys.add("board-7", agent="board")
    async with door.asking(secret) as http:
        await ask(http, "ceo")
    assert ["board"] == [request.agent for request in pool.requests]
    [use] = await door.client.keys.list()
    assert (1, True) == (use.jobs, use.tokens > 0)


async def test_a_full_minute(door: Door) -> None:
    """429 with when to come again; what is refused is not charged."""
    secret = await door.client.keys.add("board-7", jobs_per_minute=2)
    async with door.asking(secret) as http:
        answers = [await ask(http, "ceo") for _ in range(4)]
        assert [200, 200] == [answer.status_code for answer in answers[:2]] or answers[2].status_code == 200
        refused = [answer for answer in answers if answer.status_code == 429]
        assert refused
        assert 1 <= int(refused[0].headers["retry-after"]) <= 60
        error = refused[0].json()["error"]
        assert ("rate_limit_error", "rate_limit_exceeded") == (error["type"], error["code"])
        assert "2 of its 2 jobs" in error["message"]


async def test_a_spent_day(door: Door) -> None:
    """429 that clients do not repeat, as OpenAI's API says it."""
    secret = await door.client.keys.add("board-7", tokens_per_day=50)
    async with door.asking(secret) as http:
        answer = await ask(http, "ceo", max_tokens=60)
    assert (429, "insufficient_quota") == (answer.status_code, answer.json()["error"]["code"])
    assert ("60", "false") == (answer.headers["retry-after"], answer.headers["x-should-retry"])


async def test_a_revoked_key_is_refused(door: Door) -> None:
    """New jobs at once, whatever the gateway still believes; all else as soon as it looks again."""
    secret = await door.client.keys.add("board-7")
    async with door.asking(secret) as http:
        assert 200 == (await ask(http, "ceo")).status_code
        await door.client.keys.revoke("board-7")
        assert 401 == (await ask(http, "ceo")).status_code
    other_replica = Door(door.client, create_app(door.client, GatewaySettings()))
    assert 401 == await other_replica.status(secret)


# -- what belongs to others


async def owned(http: httpx.AsyncClient, paths: set[str]) -> dict[str, str]:
    """One of each kind that there is, by the path below which it is found."""
    chat = await ask(http, "ceo")
    plain = await http.post("/v1/completions", json={"model": "ceo", "prompt": "How long?"})
    response = await http.post("/v1/responses", json={"model": "ceo", "input": "How long?"})
    made = {"/v1/chat/completions": chat, "/v1/completions": plain, "/v1/responses": response}
    if "/v1/files" in paths:
        line = (
            '{"custom_id": "a", "method": "POST", "url": "/v1/chat/completions", "body": {"model": "ceo", "messages": '
        )
        line += '[{"role": "user", "content": "x"}]}}'
        form = {"purpose": "batch"}
        made["/v1/files"] = await http.post("/v1/files", data=form, files={"file": ("a.jsonl", line.encode())})
    if "/v1/batches" in paths:
        file_id = made["/v1/files"].json()["id"]
        batch = {"input_file_id": file_id, "endpoint": "/v1/chat/completions", "completion_window": "24h"}
        made["/v1/batches"] = await http.post("/v1/batches", json=batch)
    return {path: answer.json()["id"] for path, answer in made.items()}


async def test_what_is_anothers_is_not_there(door: Door) -> None:
    """Every route that names a thing, with another agent's key: 404, as for a thing that never was; for its owner it is
    there, and an operator sees it. A route of a new kind has to be named in ``owned``."""
    keys = door.client.keys
    mine, other, operator = await keys.add("mine"), await keys.add("other"), await keys.add("ops", role="operator")
    named = [
        (method, path) for method, path in routes(door.app.routes) if "{" in path and not path.startswith("/console")
    ]
    named = [(method, path) for method, path in named if path not in {"/v1/{path:path}", "/v1/models/{name:path}"}]
    async with door.asking(mine) as owner, door.asking(other) as stranger, door.asking(operator) as ops:
        made = await owned(owner, {path for _, path in routes(door.app.routes)})
        for method, path in named:
            kind = path[: path.index("/{")]
            theirs = path.replace(path[path.index("{") : path.index("}") + 1], made[kind])
            answer = await stranger.request(method, theirs)
            nothing = await stranger.request(method, theirs.replace(made[kind], f"{made[kind][:-4]}zzzz"))
            assert (404, 404) == (answer.status_code, nothing.status_code), (method, path, answer.text)
            if method == "GET":
                assert 404 not in {(await who.get(theirs)).status_code for who in (owner, ops)}, path


async def test_lists_have_ones_own_alone(door: Door) -> None:
    """Every route that lists: another agent's key sees nothing there."""
    mine, other = await door.client.keys.add("mine"), await door.client.keys.add("other")
    paths = {path for method, path in routes(door.app.routes) if method == "GET" and "{" not in path}
    async with door.asking(mine) as owner, door.asking(other) as stranger:
        made = await owned(owner, {path for _, path in routes(door.app.routes)})
        for path in paths - {"/health", "/v1/models"}:
            text = (await stranger.get(path)).text
            assert not [one for one in made.values() if one in text], path


async def test_what_is_anothers_is_not_referred_to(door: Door, pool: CannedPool) -> None:
    """Neither as the response to go on from, nor as the file of a batch, nor as the stream to read on."""
    mine, other = await door.client.keys.add("mine"), await door.client.keys.add("other")
    async with door.asking(mine) as owner, door.asking(other) as stranger:
        made = await owned(owner, {path for _, path in routes(door.app.routes)})
        before = len(pool.requests)
        for theirs, nothing in ((made[kind], f"{made[kind][:-4]}zzzz") for kind in ("/v1/responses", "/v1/files")):
            told = []
            for name in (theirs, nothing):
                follow = {"model": "ceo", "input": "And?", "previous_response_id": name}
                batch = {"input_file_id": name, "endpoint": "/v1/chat/completions", "completion_window": "24h"}
                path, body = ("/v1/batches", batch) if name.startswith("file") else ("/v1/responses", follow)
                answer = await stranger.post(path, json=body)
                told.append((answer.status_code, answer.text.replace(name, "")))
            assert told[0] == told[1]
            assert told[0][0] in {400, 404}
        for path in ("/v1/chat/completions", "/v1/completions"):
            asked = {**ASKING[path], "model": "ceo", "stream": True}
            answer = await stranger.post(path, json=asked, headers={"last-event-id": f"{made[path]}:0.0.0"})
            assert (404, False) == (answer.status_code, "Onwards" in answer.text)
        assert before == len(pool.requests)


async def test_the_console_lets_in_nobody_without_a_session(door: Door) -> None:
    """Whatever its routes, and whatever key a request brings: one has to sign in, with an operator's."""
    keys = door.client.keys
    secrets = "", WRONG, await keys.add("mine"), await keys.add("ops", role="operator")
    ways_in = {"/console/sign-in", "/console/assets"}
    asked = [(m, path) for m, path in routes(door.app.routes) if path.startswith("/console") and path not in ways_in]
    assert len(asked) > 20
    for secret in secrets:
        async with door.asking(secret, base_url="https://llm.example.com") as http:
            for method, path in asked:
                answer = await http.request(method, filled(path), headers={"origin": "https://llm.example.com"})
                signing = answer.headers.get("location", "").startswith("/console/sign-in")
                assert answer.status_code == 401 or (answer.status_code == 303 and signing), (method, path)


async def test_one_idempotency_key_of_two_callers(door: Door, pool: CannedPool) -> None:
    """Is two jobs: neither gets the other's answer."""
    answers = []
    for name in ("mine", "other"):
        async with door.asking(await door.client.keys.add(name)) as http:
            answers.append((await http.post("/v1/chat/completions", headers={"idempotency-key": "one"}, json={
                "model": "ceo", "messages": [{"role": "user", "content": "How long?"}],
            })).json()["id"])  # fmt: skip
    assert 2 == len(set(answers)) == len(pool.requests)


# -- what the gateway remembers


class CountingBook:
    """Stands in for a key book; counts what it is asked, and may be away."""

    def __init__(self, book: KeyBook) -> None:
        self._book = book
        self.asked, self.away = 0, False

    async def find(self, secret: str) -> Any:
        self.asked += 1
        if self.away:
            raise RedisUnreachable("away")
        return await self._book.find(secret)

    async def any(self) -> bool:
        if self.away:
            raise RedisUnreachable("away")
        return await self._book.any()


async def test_a_key_is_looked_up_once_a_second(door: Door) -> None:
    """Right and wrong ones; what cannot be a secret never."""
    now = 100.0
    secret, book = await door.client.keys.add("board-7"), CountingBook(door.client.keys)
    known = KnownKeys(book, lambda: now)
    for _ in range(50):
        assert "board-7" == (await known.find(secret)).name
        assert None is await known.find(WRONG)
        assert None is await known.find("sk-other")
    assert 2 == book.asked
    now += BELIEVED_S
    await known.find(secret)
    await known.find(WRONG)
    assert 4 == book.asked


async def test_guesses_fill_no_memory(door: Door) -> None:
    """However many wrong keys come, a bounded number is remembered, as hashes, and right ones stay."""
    secret, known = await door.client.keys.add("board-7"), KnownKeys(door.client.keys)
    await known.find(secret)
    for n in range(MAX_WRONG + 200):
        await known.find(f"lp-{n:043d}")
    assert (MAX_WRONG, 1) == (len(known._wrong._kept), len(known._good._kept))
    assert not [name for name in (*known._wrong._kept, *known._good._kept) if name.startswith("lp-")]


async def test_known_keys_stay_known_while_redis_is_away(door: Door) -> None:
    """Who was known goes on; who was not cannot be told, and gets the error of a server that is away."""
    now = 100.0
    secret, book = await door.client.keys.add("board-7"), CountingBook(door.client.keys)
    known = KnownKeys(book, lambda: now)
    await known.find(secret)
    assert await known.any()
    book.away, now = True, now + 60
    assert "board-7" == (await known.find(secret)).name
    assert await known.any()
    with pytest.raises(RedisUnreachable):
        await known.find(WRONG)
