"""Verdicts on new adapters, over a real catalog."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

import pytest
from redis.asyncio import Redis

from lorapool.shared.catalog.catalog import AdapterRecord, Catalog
from lorapool.shared.errors import AdapterUnavailable, CheckpointError
from lorapool.shared.tasks import cancel_and_wait
from lorapool.worker.adapters import validator
from lorapool.worker.adapters.validator import Check, Validator
from lorapool.worker.confinement.process import ProcessEnded
from tests.fleet import until
from tests.parts import catalog_of

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
async def validating(catalog: Catalog, worker: str = "w1", check: Check = check) -> AsyncIterator[Validator]:
    made = Validator(catalog, check, worker)
    task = asyncio.create_task(made.run())
    try:
        yield made
    finally:
        await cancel_and_wait(task)


async def verdict(catalog: Catalog, ref: str) -> AdapterRecord:
    async def decided() -> AdapterRecord | None:
        record = await catalog.get(ref)
        return None if record.status == "pending" else record

    found = await until(decided)
    assert isinstance(found, AdapterRecord)
    return found


async def test_ready_with_facts(redis: Redis) -> None:
    """A good adapter becomes ready, with what the check found out."""
    catalog = catalog_of(redis, "default")
    await catalog.register(RECORD)
    async with validating(catalog):
        found = await verdict(catalog, "cfo@1")
    assert ("ready", 4) == (found.status, found.rank)


async def test_refused_with_the_reason(redis: Redis) -> None:
    """A bad adapter is refused in the checker's words."""
    catalog = catalog_of(redis, "default")
    await catalog.register(RECORD.model_copy(update={"id": "bad"}))
    async with validating(catalog):
        found = await verdict(catalog, "bad@1")
    assert ("refused", "it is misshapen") == (found.status, found.reason)


async def test_unforeseen_error_refuses(redis: Redis) -> None:
    """An adapter that breaks the check itself is refused, and the next one is still looked at."""
    catalog = catalog_of(redis, "default")
    await catalog.register(RECORD.model_copy(update={"id": "vile"}))
    async with validating(catalog) as made:
        found = await verdict(catalog, "vile@1")
        await catalog.register(RECORD)
        await made.request({"op": "validate", "ref": "cfo@1"})
        assert (await verdict(catalog, "cfo@1")).status == "ready"
    assert found.status == "refused"
    assert "ZeroDivisionError" in found.reason


@pytest.mark.parametrize(
    ("adapter_id", "reason"), [("surrogate", "rank_pattern['\ufffd']"), ("wordless", validator.NO_REASON)]
)
async def test_a_reason_that_cannot_be_told_ends_no_validator(redis: Redis, adapter_id: str, reason: str) -> None:
    """What cannot be sent or said is replaced, and the next adapter is looked at."""
    catalog = catalog_of(redis, "default")
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
    catalog = catalog_of(redis, "default")
    async with validating(catalog):
        await asyncio.sleep(0.02)
        await catalog.register(RECORD)
        assert (await verdict(catalog, "cfo@1")).status == "ready"


def unreachable(record: AdapterRecord) -> Mapping[str, str | int]:
    raise AdapterUnavailable("no such folder on this worker")


def deadly(record: AdapterRecord) -> Mapping[str, str | int]:
    raise ProcessEnded("stopped: it took too long, at its chat template")


async def test_what_a_worker_cannot_reach_is_left_to_the_others(redis: Redis) -> None:
    """It stays pending and says why, until one comes that can; then nothing is left of that."""
    catalog = catalog_of(redis, "default")
    await catalog.register(RECORD)
    async with validating(catalog, "w1", unreachable) as first:
        await until(lambda: _noted(catalog, "w1"))
        found = await catalog.get("cfo@1")
        assert ("pending", {"w1": "no such folder on this worker"}) == (found.status, found.not_here)
        assert ("cfo@1",) == first.not_here.refs()
        async with validating(catalog, "w2"):
            found = await verdict(catalog, "cfo@1")
    assert ("ready", {}, "") == (found.status, found.not_here, found.judging)


async def _noted(catalog: Catalog, worker: str) -> bool:
    return worker in (await catalog.get("cfo@1")).not_here


async def test_what_ends_its_judge_twice_is_refused(redis: Redis, monkeypatch: pytest.MonkeyPatch) -> None:
    """With that reason; no third judge dies of it. Registered again, it is judged anew."""
    monkeypatch.setattr(validator, "LOOK_AGAIN_S", 0.01)
    catalog, judges = catalog_of(redis, "default"), []

    def dying(record: AdapterRecord) -> Mapping[str, str | int]:
        judges.append(record.ref)
        return deadly(record)

    await catalog.register(RECORD)
    async with validating(catalog, "w1", dying):
        found = await verdict(catalog, "cfo@1")
    assert ("refused", ["cfo@1", "cfo@1"]) == (found.status, judges)
    assert "ended its judge 2 times, on w1, w1" in found.reason
    assert "at its chat template" in found.reason
    await catalog.register(RECORD)
    assert 0 == (await catalog.get("cfo@1")).judge_deaths


async def test_a_worker_that_vanishes_over_it_counts_too(redis: Redis) -> None:
    """Each is killed in the middle: its mark runs out, and after the second nobody tries again."""
    clock = "lp:{default}:clock"
    catalog = catalog_of(redis, "default", clock)
    now = 1_800_000_000_000
    await redis.set(clock, now)
    await catalog.register(RECORD)
    for number, name in enumerate(("w1", "w2")):
        begun = await catalog.begin_judging(RECORD, name, f"token-{name}", 1000)
        assert ("begun", number) == begun[:2]
        assert "busy" == (await catalog.begin_judging(RECORD, "w3", "t", 1000)).word
        await redis.set(clock, now := now + 1001)
    async with validating(catalog, "w3"):
        found = await verdict(catalog, "cfo@1")
    assert "refused" == found.status
    assert "on w1, w2" in found.reason


async def test_a_mark_set_while_the_clock_was_ahead(redis: Redis) -> None:
    """The server's clock comes back by an hour: a vanished worker holds the version for as long as any other."""
    clock = "lp:{default}:clock"
    catalog = catalog_of(redis, "default", clock)
    now = 1_800_000_000_000
    await redis.set(clock, now + 3_600_000)
    await catalog.register(RECORD)
    assert "begun" == (await catalog.begin_judging(RECORD, "w1", "t1", 1000)).word
    await redis.set(clock, now)
    assert "busy" == (await catalog.begin_judging(RECORD, "w2", "t2", 1000)).word
    await redis.set(clock, now + 1001)
    assert ("begun", 1, "w1") == await catalog.begin_judging(RECORD, "w2", "t2", 1000)


async def test_one_worker_at_a_time_judges_a_version(redis: Redis) -> None:
    """The other waits for its verdict; the mark is repeated safely and ends with it."""
    catalog = catalog_of(redis, "default")
    await catalog.register(RECORD)
    for _ in range(2):
        assert ("begun", 0, "") == await catalog.begin_judging(RECORD, "w1", "t1", 60_000)
    assert ("busy", 0, "w1") == await catalog.begin_judging(RECORD, "w2", "t2", 60_000)
    assert "w1" == (await catalog.get("cfo@1")).judging
    assert "begun" == (await catalog.renew_judging("cfo@1", "w1", "t1", 60_000)).word
    assert "gone" == (await catalog.end_judging("cfo@1", "w2", "t2", "died")).word
    assert ("ended", 0, "") == await catalog.end_judging("cfo@1", "w1", "t1", "left")
    assert ("begun", 0, "") == await catalog.begin_judging(RECORD, "w2", "t2", 60_000)
    await catalog.decide("cfo@1", "ready")
    assert "gone" == (await catalog.begin_judging(RECORD, "w1", "t3", 60_000)).word
    assert "" == (await catalog.get("cfo@1")).judging


async def test_a_worker_that_leaves_takes_its_mark_along(redis: Redis) -> None:
    """On purpose, in the middle of a judgement: nothing counts against the version."""
    catalog, begun = catalog_of(redis, "default"), asyncio.Event()
    loop = asyncio.get_running_loop()

    def slow(record: AdapterRecord) -> Mapping[str, str | int]:
        loop.call_soon_threadsafe(begun.set)
        time.sleep(0.3)
        return {}

    await catalog.register(RECORD)
    async with validating(catalog, "w1", slow):
        await begun.wait()
    assert ("", 0) == ((found := await catalog.get("cfo@1")).judging, found.judge_deaths)
    assert "pending" == found.status
