"""What is stored of a response beside its job."""

from __future__ import annotations

import json

import pytest
from redis.asyncio import Redis

from lorapool.shared.errors import MalformedEntry, PayloadTooLarge
from lorapool.shared.responses.response_record import MAX_BYTES, ResponseRecord
from lorapool.shared.responses.responses import TTL_MS, Responses
from tests.parts import Queue

ITEMS = ({"type": "message", "role": "user", "content": [{"type": "input_text", "text": "Tschüß?"}]},)


def record(**fields: object) -> ResponseRecord:
    values = {"id": "j1", "agent": "board-7", "created_ms": 5, "echo": {"model": "cfo"}, "items": ITEMS, **fields}
    return ResponseRecord.model_validate(values)


@pytest.fixture
def responses(redis: Redis) -> Responses:
    return Responses(Queue(redis, "test").connection.partition())


async def test_what_was_kept_comes_back(responses: Responses) -> None:
    """``get`` brings what ``keep`` stored, and None for another id."""
    assert (record(), True) == await responses.keep(record())
    assert record() == await responses.get("j1")
    assert await responses.get("j2") is None


async def test_first_one_stays(responses: Responses) -> None:
    """A second ``keep`` of an id changes nothing, and says so."""
    await responses.keep(record())
    assert (record(), False) == await responses.keep(record(agent="other", created_ms=6))
    assert record() == await responses.get("j1")


async def test_record_is_plain_and_ends(responses: Responses, redis: Redis) -> None:
    """It is one JSON text that redis-cli shows, with a time to live."""
    await responses.keep(record())
    stored = await redis.get("lp:{test/0}:response:j1")
    assert "Tschüß?" in stored.decode()
    assert "board-7" == json.loads(stored)["agent"]
    assert 0 < await redis.pttl("lp:{test/0}:response:j1") <= TTL_MS


async def test_what_was_forgotten_is_gone(responses: Responses) -> None:
    """``forget`` says whether there was one."""
    await responses.keep(record())
    assert await responses.forget("0.j1")
    assert not await responses.forget("j1")
    assert await responses.get("j1") is None


async def test_size_is_bounded(responses: Responses) -> None:
    """More than the limit is refused before it is sent."""
    with pytest.raises(PayloadTooLarge, match="store = false"):
        await responses.keep(record(echo={"instructions": "x" * MAX_BYTES}))


@pytest.mark.parametrize("junk", [b"", b"null", b"[1]", b'{"id": "j1"}', b"\xff\xfe", b"{" * 5000])
async def test_junk_is_named(responses: Responses, redis: Redis, junk: bytes) -> None:
    """What is no record of ours is a MalformedEntry."""
    await redis.set("lp:{test/0}:response:j1", junk)
    with pytest.raises(MalformedEntry):
        await responses.get("j1")
    with pytest.raises(MalformedEntry):
        await responses.keep(record())


async def test_key_of_another_type_is_named(responses: Responses, redis: Redis) -> None:
    """A list where a record should be is a MalformedEntry."""
    await redis.rpush("lp:{test/0}:response:j1", "x")
    with pytest.raises(MalformedEntry):
        await responses.get("j1")
    with pytest.raises(MalformedEntry):
        await responses.keep(record())


async def test_fields_of_later_releases_are_ignored(responses: Responses, redis: Redis) -> None:
    """A record with a field more is read."""
    await redis.set("lp:{test/0}:response:j1", json.dumps({**record().model_dump(), "mood": "good"}))
    assert record() == await responses.get("j1")
