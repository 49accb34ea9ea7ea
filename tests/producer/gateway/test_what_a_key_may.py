"""What a key may: its adapters, at every door, and its quotas."""

from __future__ import annotations

import pytest

from lorapool.producer.gateway.app import create_app
from lorapool.producer.gateway.caller import Caller
from lorapool.producer.gateway.settings import GatewaySettings
from lorapool.producer.testing import CannedPool
from tests.producer.gateway.guarded import ASKING, Door, ask, routes


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


@pytest.mark.parametrize(
    ("patterns", "adapter", "may"),
    [
        (("*",), "cfo", True),
        (("*",), "_base", True),
        (("cfo*",), "cfo-eu", True),
        (("cfo*",), "ceo", False),
        (("cfo",), "cfo-eu", False),
        (("ceo", "c?o"), "cto", True),
        (("c[ef]o",), "cfo", True),
        (("cfo*",), "_base", False),
        (("CFO",), "cfo", False),
    ],
)
def test_which_adapters_a_key_may_ask(patterns: tuple[str, ...], adapter: str, may: bool) -> None:
    """By patterns of ids, as a shell has them; `_base` is the base model."""
    assert may == Caller("k", "k", patterns).may_ask(adapter)


def test_a_hostile_pattern_takes_no_time() -> None:
    """Sixty stars, and a name that almost matches."""
    assert not Caller("k", "k", ("*a" * 60 + "b",) * 64).may_ask("a" * 128)
