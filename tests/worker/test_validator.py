"""Verdicts on new adapters, over a real catalog."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

import pytest
from redis.asyncio import Redis

from lorapool.shared.catalog import AdapterRecord, Catalog
from lorapool.shared.errors import CheckpointError
from lorapool.worker import validator
from lorapool.worker.persistence import put_down
from lorapool.worker.validator import Validator
from tests.fleet import until

RECORD = AdapterRecord(id="cfo", version="1", digest="d" * 64, uri="file:///cfo")


class Wordless(Exception):
    """Its words are a program of someone else's too."""

    def __str__(self) -> str:
        raise ValueError("no words")


def check(record: AdapterRecord) -> Mapping[str, str | int]:
    match record.id:
        case "bad":
            raise CheckpointError("it is misshapen")
        case "vile":
            raise ZeroDivisionError("no one thought of this")
        case "surrogate":
            raise CheckpointError("rank_pattern['\ud800']: expected a number")
        case "wordless":
            raise Wordless
    return {"rank": 4}


@asynccontextmanager
async def validating(catalog: Catalog) -> AsyncIterator[Validator]:
    made = Validator(catalog, check)
    task = asyncio.create_task(made.run())
    try:
        yield made
    finally:
        await put_down([task])


async def verdict(catalog: Catalog, ref: str) -> AdapterRecord:
    async def decided() -> AdapterRecord | None:
        record = await catalog.get(ref)
        return None if record.status == "pending" else record

    found = await until(decided, timeout_s=4)
    assert isinstance(found, AdapterRecord)
    return found


async def test_ready_with_facts(redis: Redis) -> None:
    """A good adapter becomes ready, with what the check found out."""
    catalog = Catalog(redis, "default")
    await catalog.register(RECORD)
    async with validating(catalog):
        found = await verdict(catalog, "cfo@1")
    assert ("ready", 4) == (found.status, found.rank)


async def test_refused_with_the_reason(redis: Redis) -> None:
    """A bad adapter is refused in the checker's words."""
    catalog = Catalog(redis, "default")
    await catalog.register(RECORD.model_copy(update={"id": "bad"}))
    async with validating(catalog):
        found = await verdict(catalog, "bad@1")
    assert ("refused", "it is misshapen") == (found.status, found.reason)


async def test_unforeseen_error_refuses(redis: Redis) -> None:
    """An adapter that breaks the check itself is refused, and the next one is still looked at."""
    catalog = Catalog(redis, "default")
    await catalog.register(RECORD.model_copy(update={"id": "vile"}))
    async with validating(catalog) as made:
        found = await verdict(catalog, "vile@1")
        await catalog.register(RECORD)
        await made.request({"op": "validate", "ref": "cfo@1"})
        assert (await verdict(catalog, "cfo@1")).status == "ready"
    assert found.status == "refused"
    assert "ZeroDivisionError" in found.reason


@pytest.mark.parametrize(
    ("adapter_id", "reason"), [("surrogate", "rank_pattern['\ufffd']"), ("wordless", validator.UNTELLABLE)]
)
async def test_a_reason_that_cannot_be_told_ends_no_validator(redis: Redis, adapter_id: str, reason: str) -> None:
    """What cannot be sent or said is replaced, and the next adapter is looked at."""
    catalog = Catalog(redis, "default")
    await catalog.register(RECORD.model_copy(update={"id": adapter_id}))
    async with validating(catalog) as made:
        found = await verdict(catalog, f"{adapter_id}@1")
        assert "refused" == found.status and reason in found.reason
        await catalog.register(RECORD)
        await made.request({"op": "validate", "ref": "cfo@1"})
        assert "ready" == (await verdict(catalog, "cfo@1")).status


async def test_looks_by_itself(redis: Redis, monkeypatch: pytest.MonkeyPatch) -> None:
    """An adapter whose request got lost is found at the next look."""
    monkeypatch.setattr(validator, "LOOK_EVERY_S", 0.05)
    catalog = Catalog(redis, "default")
    async with validating(catalog):
        await asyncio.sleep(0.02)
        await catalog.register(RECORD)
        assert (await verdict(catalog, "cfo@1")).status == "ready"
