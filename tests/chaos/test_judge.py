"""The judge of chaos objects to what it is there to object to: each wrong is planted, each is told."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from random import Random
from typing import Any

import pytest
from redis.asyncio import Redis
from redis.exceptions import ResponseError

from lorapool.producer.client.client import Client
from lorapool.shared.codec import encode_detail
from lorapool.shared.queue.protocol import Delta, Settlement
from lorapool.shared.server.keys import Keys, PoolKeys
from lorapool.shared.server.server import Server
from tests.chaos.judge import Judge
from tests.chaos.ledger import Entry, Ledger
from tests.chaos.scribbles import scribbles, wiped
from tests.containment.bystanders import Outcome, Sample
from tests.parts import Queue

KEYS = Keys("default")


def entry(**fields: Any) -> Entry:
    """An entry as it stands when all went well."""
    return replace(Entry("mine", "streamed", None, "question", 3, ""), accepted=True, end="succeeded", **fields)


async def story(pool: Client, queue: Queue, device: str = "w1") -> Entry:
    """One streamed job, from submission to its agent's answer."""
    mine = entry()
    handle = await pool.submit(**mine.request)
    [claimed] = (await queue.claim("w1", "L", ["_base"], 1, 1, 15_000)).jobs
    text = "".join(f"{token} " for token in mine.right)
    await queue.emit([Delta(claimed.job_id, "L", 1, 0, text, mine.right)])
    detail = encode_detail(mine.right, None)
    answer = {"text": text, "finish_reason": "length", "device": device, "detail": detail}
    await queue.settle([Settlement(claimed.job_id, "L", "succeeded", **answer)])
    result = await handle.result(10)
    return replace(mine, token_ids=result.token_ids, text=text, record=await handle.record())


async def judged(redis: Redis, queue: Queue, pool: Client, told: Entry) -> list[str]:
    ledger = Ledger(iter(()))
    ledger.entries = [told]
    judge = Judge(Server(redis), queue, Queue(redis, KEYS.pool), before_bytes=0)
    return (await judge.judge(ledger, [pool._name], refusals=0)).complaints


@pytest.mark.parametrize(
    ("wrong", "complaint"),
    [
        (lambda told: told, None),
        (lambda told: replace(told, end="no answer"), "no answer"),
        (lambda told: replace(told, token_ids=(1, 2, 3)), "right are"),
        (lambda told: replace(told, text="1 2 3 "), "right is"),
        (lambda told: replace(told, record={**told.record, "text": "other"}), "stored"),
        (lambda told: replace(told, end="expired"), "counted are"),
    ],
    ids=["nothing", "lost", "tokens", "stream", "changed", "counters"],
)
async def test_what_agents_were_told(
    redis_url: str, redis: Redis, wrong: Callable[[Entry], Entry], complaint: str | None
) -> None:
    """A ledger that does not agree with the server; and one that does."""
    queue = Queue(redis, KEYS.pool)
    async with Client(redis_url) as pool:
        told = wrong(await story(pool, queue))
    complaints = await judged(redis, queue, pool, told)
    await queue.close()
    assert (complaint is None) == (not complaints), complaints
    assert complaint is None or any(complaint in line for line in complaints)


@pytest.mark.parametrize(
    ("damage", "complaint"),
    [
        (("XADD", KEYS.inbox("{client}"), "*", "mine", "succeeded"), "2 notices"),
        (("XADD", KEYS.tokens("mine"), "*", "kind", "end", "attempt", 1, "state", "failed"), "out of order"),
        (("HINCRBY", KEYS.stats("_base"), "succeeded", 1), "counted are 2"),
        (("HSET", KEYS.job("mine"), "fence", 2), "2 claims"),
        (("HSET", KEYS.job("mine"), "lost", 1), "1 lost"),
        (("SET", KEYS.payload("mine"), "x"), "fsck found"),
        (("SET", KEYS.one("something"), "x"), "would stay for ever"),
        (("HSET", PoolKeys("default").adapter("large@1"), "note", "x" * (4 << 20)), "bytes more"),
    ],
    ids=["notices", "stream", "counters", "claims", "losses", "fsck", "keys", "memory"],
)
async def test_what_the_server_holds(redis_url: str, redis: Redis, damage: tuple[Any, ...], complaint: str) -> None:
    """Damage done by raw commands."""
    queue = Queue(redis, KEYS.pool)
    async with Client(redis_url) as pool:
        told = await story(pool, queue)
    await redis.execute_command(*(str(part).replace("{client}", pool._name) for part in damage))
    complaints = await judged(redis, queue, pool, told)
    await queue.close()
    assert any(complaint in line for line in complaints), complaints


async def test_who_wrote_it(redis_url: str, redis: Redis) -> None:
    """A result written by another worker than the one that had the job."""
    queue = Queue(redis, KEYS.pool)
    async with Client(redis_url) as pool:
        told = await story(pool, queue, device="w2")
    complaints = await judged(redis, queue, pool, told)
    await queue.close()
    assert ["mine: 'w1' had it, 'w2' ended it"] == complaints


@pytest.mark.parametrize(
    ("outcomes", "complaint"),
    [
        ([Outcome(0.0, 0.5)], None),
        ([Outcome(0.0, 0.5, "by-1@1: wrong tokens")], "wrong tokens"),
        ([Outcome(0.0, 0.5), Outcome(0.0, 0.5)], "sent 2 jobs, counted are 1"),
        ([Outcome(0.0, 500.0)], "took up to 500.0 s"),
    ],
    ids=["nothing", "tokens", "counters", "late"],
)
async def test_how_bystanders_fared(
    redis_url: str, redis: Redis, outcomes: list[Outcome], complaint: str | None
) -> None:
    """One job of theirs has succeeded, by the server's count."""
    queue = Queue(redis, KEYS.pool)
    async with Client(redis_url) as pool:
        await story(pool, queue)
    judge = Judge(Server(redis), queue, Queue(redis, KEYS.pool), before_bytes=0)
    complaints = await judge.bystanders(Sample(tuple(outcomes)), ["_base"])
    await queue.close()
    assert (complaint is None) == (not complaints), complaints
    assert complaint is None or any(complaint in line for line in complaints)


async def test_what_was_scribbled(redis_url: str, redis: Redis) -> None:
    """Entries that nobody can read are no fault of anybody's, and what readers step over can be wiped."""
    queue = Queue(redis, KEYS.pool)
    async with Client(redis_url) as pool:
        told = await story(pool, queue)
        for command in (*scribbles(Random(1), ["w1"], [pool._name]), *wiped()):
            with suppress(ResponseError):
                await redis.execute_command(*command)
    await queue.tick("w1")
    complaints = await judged(redis, queue, pool, told)
    await queue.close()
    assert [] == complaints
