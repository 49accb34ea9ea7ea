"""Chores on a real server: bounded, and they do what they say."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
from redis.asyncio import Redis

from lorapool.shared.connection import PoolConnection
from lorapool.shared.fleet.membership import Membership
from lorapool.shared.job import Job
from lorapool.shared.queue.protocol import Settlement
from lorapool.shared.server.keys import Keys
from lorapool.shared.timetable.chores import ChoreBook
from lorapool.shared.timetable.timetable import Timetable
from lorapool.worker.maintenance import chores as chores_module
from lorapool.worker.maintenance.chores import Chores
from lorapool.worker.maintenance.due_runs import DueRuns
from tests.parts import Queue, catalog_of

PARTITIONS = 2


class Bench:
    def __init__(self, redis: Redis) -> None:
        self.redis, self.connection = redis, PoolConnection(redis, "default")
        self.members, self.book = Membership(self.connection), ChoreBook(self.connection)
        self.keys = [Keys("default", p) for p in range(PARTITIONS)]
        self.queues = [Queue(redis, partition=p) for p in range(PARTITIONS)]
        due_runs = DueRuns(Timetable(self.connection), catalog_of(redis), lambda p: self.queues[p])
        self.chores = Chores(self.members, self.book, self.queues, due_runs)

    async def tick_of_fsck(self) -> dict[str, Any]:
        facts = dict(await self.chores.fsck())
        await self.book.end("fsck", facts)
        return facts

    async def lose(self, partition: int, job_id: str) -> None:
        """Damage: a queued job that is in no stream."""
        await self.queues[partition].enqueue(Job.parse(id=job_id, ref="_base", prompt="x"))
        await self.redis.delete(self.keys[partition].stream("_base"))

    async def bury(self, partition: int, job_id: str) -> None:
        queue = self.queues[partition]
        await queue.enqueue(Job.parse(id=job_id, ref="_base", prompt="x"))
        await queue.claim("w1", f"lease-{job_id}", ["_base"], 1, 1, 15_000)
        await queue.settle([Settlement(job_id, f"lease-{job_id}", "dead", error="UnsupportedVersion", message="2")])


@pytest.fixture
async def bench(redis: Redis) -> AsyncIterator[Bench]:
    bench = Bench(redis)
    yield bench
    for queue in bench.queues:
        await queue.close()


async def test_fsck_goes_round_every_partition_from_tick_to_tick(bench: Bench, monkeypatch: pytest.MonkeyPatch):
    """A few steps a tick, where the last one stopped; damage anywhere is found and repaired within a round."""
    monkeypatch.setattr(chores_module, "FSCK_STEPS", 3)
    for partition in range(PARTITIONS):
        await bench.lose(partition, f"j{partition}")
    damaged, rounds, ticks = 0, 0, 0
    while not rounds and ticks < 50:
        facts = await bench.tick_of_fsck()
        assert facts["steps"] <= 3
        damaged, rounds, ticks = damaged + facts["found"], rounds + facts["rounds"], ticks + 1
    assert ticks > 2
    assert damaged >= PARTITIONS
    for partition in range(PARTITIONS):
        claim = await bench.queues[partition].claim("w1", "l", ["_base"], 1, 1, 15_000)
        assert [f"{partition}.j{partition}"] == [job.job_id for job in claim.jobs]


@pytest.mark.parametrize("place", [b"junk", b"1 nowhere 5", b"0 keys x", b"\xff\xfe 9", b"9999 adapters 0 \xff"])
async def test_fsck_begins_anew_where_its_place_is_lost(bench: Bench, place: bytes):
    """Whatever stands in the book as its place, damage is found within two ticks."""
    await bench.lose(1, "lost")
    await bench.redis.hset("lp:{default}:chores", "fsck.cursor", place)
    assert 1 <= sum([(await bench.tick_of_fsck())["found"] for _ in range(2)])


async def test_fsck_ends_a_tick_at_the_end_of_a_round(bench: Bench):
    """A small pool is not gone through again and again within a tick; a calm one has nothing to repair."""
    facts = await bench.tick_of_fsck()
    assert (1, 0, "0") == (facts["rounds"], facts["found"], facts["cursor"])
    assert facts["steps"] < chores_module.FSCK_STEPS


async def test_dead_letters_are_counted_by_reason_and_adapter(bench: Bench):
    """Over all partitions, in one hash for redis-cli; none leave zero."""
    assert 0 == (await bench.chores.dead_letters())["total"]
    assert {b"total": b"0", b"more": b"0"} == await bench.redis.hgetall("lp:{default}:dead")
    for number in range(3):
        await bench.bury(number % PARTITIONS, f"j{number}")
    assert 3 == (await bench.chores.dead_letters())["total"]
    digest = await bench.redis.hgetall("lp:{default}:dead")
    assert (b"3", b"3", b"3") == (digest[b"total"], digest[b"reason:UnsupportedVersion"], digest[b"adapter:_base"])


async def test_what_a_dead_worker_left_is_dropped(bench: Bench):
    """Its keys in every partition, and its place among those who are there; a living worker's stay."""
    for worker in ("w1", "w2"):
        await bench.members.beat(worker, {}, 60_000)
        for partition in range(PARTITIONS):
            await bench.bury(partition, f"{worker}-{partition}")  # leaves w1's claim
            await bench.queues[partition].requests.send(worker, {"op": "load", "ref": "_base"})
    assert {"alive": 2, "forgotten": 0, "keys": 0} == await bench.chores.dead_workers()
    await bench.redis.delete("lp:{default}:worker:w1")  # as expired
    assert {"alive": 1, "forgotten": 1, "keys": 3 * PARTITIONS} == await bench.chores.dead_workers()
    left = {key.decode() async for key in bench.redis.scan_iter("*:w[12]")}
    assert {"lp:{default}:worker:w2", "lp:{default/0}:ctl:w2", "lp:{default/1}:ctl:w2"} == left
    assert {"alive": 1, "forgotten": 0, "keys": 0} == await bench.chores.dead_workers()


async def test_a_silent_worker_that_holds_jobs_is_not_forgotten(bench: Bench):
    """It may be frozen, and come back to ask for its last claim again; its jobs are reaped first."""
    await bench.members.beat("w1", {}, 60_000)
    await bench.queues[0].enqueue(Job.parse(id="held", ref="_base", prompt="x"))
    await bench.queues[0].claim("w1", "l", ["_base"], 1, 1, 15_000)
    await bench.chores.dead_workers()
    await bench.redis.delete("lp:{default}:worker:w1")
    assert {"alive": 0, "forgotten": 0, "keys": 0} == await bench.chores.dead_workers()
    again = await bench.queues[0].claim("w1", "l", ["_base"], 1, 1, 15_000)
    assert ["0.held"] == [job.job_id for job in again.jobs]
    await bench.queues[0].settle([Settlement("held", "l", "succeeded")])
    assert {"alive": 0, "forgotten": 1, "keys": 2} == await bench.chores.dead_workers()
