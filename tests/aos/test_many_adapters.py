"""AOS's questions about a pool of thousands of adapters: few round trips, and no long stop for whoever asks."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from redis.asyncio import Redis

from lorapool.producer import Client
from lorapool.producer.aos.status import look
from lorapool.shared.catalog.catalog import AdapterRecord
from lorapool.shared.server.keys import Keys
from lorapool.shared.server.server import Server
from tests.fleet import add_adapters
from tests.parts import Queue, catalog_of
from tests.producer.client.test_stalls import TURN_S, turns

ADAPTERS = 3_000


async def crowd(redis: Redis, count: int) -> None:
    """Ready adapters of two versions each, whose jobs were counted."""
    catalog = catalog_of(redis, "default")
    pipe = redis.pipeline(transaction=False)
    for n in range(count):
        record = AdapterRecord(id=f"a{n // 2}", version=f"{n % 2}", digest=f"{n:064x}", uri="file:///x", status="ready")
        fields = [part for pair in record.stored().items() for part in pair]
        pipe.execute_command("HSET", catalog._keys.adapter(record.ref), *fields, "status", "ready")
        pipe.zadd(catalog._keys.adapters, {record.ref: n})
        pipe.hset(Keys("default").stats(record.ref), mapping={"succeeded": 2, "total_ms": 10, "loads": n})
        pipe.hset(Keys("default").adapter(record.ref), mapping={"state": "open", "claimed_ms": 1000 + n})
    await pipe.execute()


def counted(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many commands each round trip has from now on."""
    trips: list[int] = []
    command, pipelined = Server.command, Server._pipelined

    async def one(server: Any, *words: Any) -> Any:
        trips.append(1)
        return await command(server, *words)

    async def many(server: Any, commands: Any) -> Any:
        trips.append(len(commands))
        return await pipelined(server, commands)

    monkeypatch.setattr(Server, "command", one)
    monkeypatch.setattr(Server, "_pipelined", many)
    return trips


async def test_a_status_asks_for_sums(redis: Redis, redis_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of 3,000 adapters: their number and what they did together, in some thirty commands and short turns."""
    await crowd(redis, ADAPTERS)
    async with Client(redis_url) as client:
        trips = counted(monkeypatch)
        async with turns() as kept:
            seen = await look(client)
    assert ADAPTERS // 2 == len(seen.adapter_ids)
    assert {"succeeded": 2 * ADAPTERS, "total_ms": 10 * ADAPTERS, "loads": sum(range(ADAPTERS))} == seen.counters
    assert sum(trips) < 50
    assert max(kept) < TURN_S


@pytest.mark.parametrize("ask", [Client.all_stats, Client.all_last_used, lambda client: client.adapters.list()])
async def test_lists_come_in_parts(
    redis: Redis, redis_url: str, ask: Callable[[Client], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is asked of every adapter takes a round trip for 256 of them."""
    await crowd(redis, ADAPTERS)
    async with Client(redis_url) as client:
        trips = counted(monkeypatch)
        async with turns() as kept:
            listed = await ask(client)
    assert len(listed) == ADAPTERS
    assert len(trips) < 30
    assert max(trips) <= 256
    assert max(kept) < TURN_S


async def test_sums_are_those_of_the_parts(redis: Redis) -> None:
    """Whole numbers stay whole, fractions come near, and what is no number is left out."""
    await add_adapters(redis, "a", "b")
    queue = Queue(redis, "default")
    await redis.hset(Keys("default").stats("a@1"), mapping={"jobs": 2**40, "busy": "0.5", "odd": "x"})
    await redis.hset(Keys("default").stats("b@1"), mapping={"jobs": 1, "busy": "0.25"})
    await redis.set(Keys("default").stats("c@1"), "no hash")
    assert {"jobs": 2**40 + 1, "busy": 0.75} == await queue.counters.sum_of(["a@1", "b@1", "c@1"])
    assert {} == await queue.counters.sum_of([])
    await queue.close()


async def test_removed_versions_are_not_listed(redis: Redis, redis_url: str) -> None:
    """As ``list`` has it; those that came later come later."""
    await add_adapters(redis, "b", "a", "c")
    async with Client(redis_url) as client:
        await client.adapters.remove("a@1")
        assert ["b@1", "c@1"] == await client.adapters.refs()
        await asyncio.gather(*(client.adapters.get(ref) for ref in ("b@1", "c@1")))
