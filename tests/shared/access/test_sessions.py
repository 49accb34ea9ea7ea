"""Sessions: of operators' keys, for as long as those stand."""

from __future__ import annotations

import pytest

from lorapool.shared.access.key_book import KeyBook
from lorapool.shared.access.sessions import SESSION_S, Sessions
from lorapool.shared.connection import PoolConnection


@pytest.fixture
def book(redis) -> KeyBook:
    return KeyBook(PoolConnection(redis, "test"))


@pytest.fixture
def sessions(redis, book) -> Sessions:
    return Sessions(PoolConnection(redis, "test"), book)


async def operators(book, name="ops"):
    return await book.find(await book.add(name, role="operator"))


async def test_a_session_is_of_its_key(sessions, book, redis):
    """Each token is another; each says who; each vanishes by itself, and is stored as a hash."""
    key = await operators(book)
    tokens = {await sessions.begin(key) for _ in range(3)}
    assert 3 == len(tokens)
    assert {"ops"} == {await sessions.who(token) for token in tokens}
    names = await redis.keys("*:session:*")
    assert 3 == len(names)
    assert not [name for name in names for token in tokens if token.encode() in name]
    assert all([0 < await redis.pttl(name) <= SESSION_S * 1000 for name in names])


async def test_what_is_no_session_is_nobody(sessions, book):
    """Empty, made up, endless."""
    assert [None] * 3 == [await sessions.who(token) for token in ("", "made-up", "x" * 10_000)]


async def test_an_ended_session_is_nobody(sessions, book):
    """The others of that key go on."""
    key = await operators(book)
    one, other = await sessions.begin(key), await sessions.begin(key)
    await sessions.end(one)
    assert [None, "ops"] == [await sessions.who(one), await sessions.who(other)]


async def test_it_ends_with_its_key(sessions, book):
    """Revoked, or taken by a later key of that name, whatever that one may."""
    token = await sessions.begin(await operators(book))
    await book.revoke("ops")
    assert await sessions.who(token) is None
    await operators(book)
    assert await sessions.who(token) is None


async def test_an_agents_key_has_none(sessions, book):
    """Also where one was begun for it."""
    key = await book.find(await book.add("board-7"))
    assert await sessions.who(await sessions.begin(key)) is None
