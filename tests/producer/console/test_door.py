"""The door: who may read and act, by an operator's key or from this host; and from which page an act may come."""

from __future__ import annotations

from http.cookies import SimpleCookie

import pytest

from lorapool.producer.console.desk import SESSION
from lorapool.producer.console.form import MAX_BYTES
from tests.producer.console.conftest import HERE


@pytest.fixture
async def key(client) -> str:
    return await client.keys.add("ops", role="operator")


async def sign_in(console, key, **fields):
    return await console.send_form("/console/sign-in", {"key": key, **fields})


async def test_without_keys_this_host_may(console):
    """And a name of another host that leads here may not."""
    assert 200 == (await console.get("/console/")).status_code
    assert 403 == (await console.get("/console/", headers={"host": "evil.example:8080"})).status_code


@pytest.mark.parametrize("path", ["/", "/adapters", "/jobs/0.x", "/audit"])
async def test_with_keys_one_signs_in(console, key, path):
    """A page leads to where the key is asked for, and on to itself afterwards."""
    answer = await console.get(f"/console{path}")
    assert 303 == answer.status_code
    assert answer.headers["location"].startswith("/console/sign-in?to=")
    signed = await sign_in(console, key, to=path)
    assert (303, f"/console{path}") == (signed.status_code, signed.headers["location"])


async def test_nothing_else_is_told_to_strangers(console, key):
    """No act, no stream."""
    assert 401 == (await console.send_form("/console/adapters/cfo/pause")).status_code
    assert 401 == (await console.get("/console/live")).status_code


async def test_a_session_is_a_cookie_that_scripts_and_others_do_not_get(console, key, redis):
    """HttpOnly, SameSite=strict, for the console alone; the server has neither key nor token in clear."""
    answer = await sign_in(console, key)
    cookie = SimpleCookie(answer.headers["set-cookie"])[SESSION]
    assert (True, "strict", "/console") == (cookie["httponly"], cookie["samesite"], cookie["path"])
    assert 200 == (await console.get("/console/")).status_code
    for name in await redis.keys("*session*"):
        assert cookie.value.encode() not in name
        assert key.encode() not in name + await redis.get(name)


async def test_other_keys_are_refused_in_the_same_words(console, client, key):
    """An agent's, a wrong one, none; and who tried with a key of the pool is written down."""
    agent = await client.keys.add("board-7")
    pages = [await sign_in(console, wrong) for wrong in (agent, "lp-" + "x" * 43, "", "<b>")]
    assert {403} == {page.status_code for page in pages}
    assert 1 == len({page.text for page in pages})
    assert ["board-7"] == [act.who for act in await client.audit.recent() if act.what == "signed in"]


async def test_a_revoked_key_ends_its_sessions(console, client, key):
    """At once; one of the same name that is made later does not bring them back."""
    await sign_in(console, key)
    await client.keys.revoke("ops")
    assert 303 == (await console.get("/console/")).status_code
    await client.keys.add("ops", role="operator")
    assert 303 == (await console.get("/console/")).status_code


async def test_signing_out_ends_the_session_on_the_server(console, key):
    """A copy of the cookie is worth nothing then."""
    await sign_in(console, key)
    copy = console.cookies[SESSION]
    await console.send_form("/console/sign-out")
    assert 303 == (await console.get("/console/", headers={"cookie": f"{SESSION}={copy}"})).status_code


@pytest.mark.parametrize("to", ["//evil.example", "https://evil.example", "/\\evil.example", "javascript:alert(1)", ""])
async def test_one_is_led_nowhere_else(console, key, to):
    """After signing in, to a page of the console."""
    assert (await sign_in(console, key, to=to)).headers["location"] == "/console/"


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"origin": "https://evil.example"},
        {"origin": "null"},
        {"origin": HERE, "sec-fetch-site": "cross-site"},
        {"origin": HERE, "sec-fetch-site": "same-site"},
        {"origin": HERE + "1", "sec-fetch-site": "same-origin"},
    ],
)
async def test_an_act_comes_from_our_own_page(console, client, add_adapter, headers):
    """What another page sends, or nobody knows which, changes nothing."""
    await add_adapter()
    answer = await console.post("/console/adapters/cfo/pause", headers=headers)
    assert 403 == answer.status_code
    assert "open" == (await client.onlooker.depths(["cfo@1"]))["cfo@1"].state


async def test_a_form_is_bounded(console):
    """In bytes and in fields."""
    assert 413 == (await console.send_form("/console/schedules", {"prompt": "x" * MAX_BYTES})).status_code
    assert 400 == (await console.send_form("/console/dead/redrive", {"job": ["a"] * 1000})).status_code
