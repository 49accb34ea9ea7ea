from __future__ import annotations

import asyncio
import itertools
import socket
from collections.abc import AsyncIterator

import pytest
from redis.asyncio import Redis

from lorapool.shared.catalog.catalog import AdapterRecord, PoolConfig
from lorapool.shared.queue.protocol import Delta, JobLease, Settlement
from lorapool.shared.server.redis_client import connect
from lorapool.shared.server.settings import redis_settings
from tests.conftest import running_server
from tests.parts import Queue, catalog_of
from tests.shared.conftest import job


@pytest.fixture
async def node() -> AsyncIterator[Redis]:
    """One node of a cluster, which owns all slots: a script that touches two slots fails on it."""
    with socket.socket() as probe:  # the default bus port, 10,000 above the other, may be beyond the last
        probe.bind(("127.0.0.1", 0))
        bus = probe.getsockname()[1]
    with running_server("--cluster-enabled", "yes", "--cluster-port", str(bus)) as url:
        client = connect(redis_settings(url))
        await client.execute_command("CLUSTER ADDSLOTSRANGE", 0, 16383)
        async with asyncio.timeout(20):
            await _ready(client)
        yield client
        await client.aclose()


async def _ready(client: Redis) -> None:
    for pause_s in itertools.repeat(0.02):
        state = (await client.execute_command("CLUSTER INFO"))["cluster_state"]
        if state == "ok":
            return
        await asyncio.sleep(pause_s)


async def test_every_operation_stays_in_one_slot(node: Redis) -> None:
    """Partition-ready: no operation on one partition, nor on the catalog, touches keys of two Cluster slots."""
    catalog = catalog_of(node, "default")
    queue = Queue(node, "default")
    await catalog.create_or_check_config(PoolConfig(base_model="smol"))
    await queue.members.beat("w1", {"device": "cpu"}, 5_000)
    await catalog.register(AdapterRecord(id="cfo", version="1", digest="ab", uri="file:///x", aliases=("CFO",)))
    await catalog.decide("cfo@1", "ready")
    assert (await catalog.resolve("CFO")).status == "ready"
    jobs = [job(id=f"job{i}", stream=True, client="c", deadline_ms=60_000, delay_ms=1_000 * (i == 5)) for i in range(6)]
    await queue.enqueue_many(jobs)
    assert await queue.wait_for_work("w1", 1)
    claimed = (await queue.claim("w1", "L", ["cfo@1"], 8, 8, 15_000, residents=["cfo@1"])).jobs
    assert len(claimed) == 5
    await queue.emit([Delta(c.job_id, "L", 1, 0, "x", (1,)) for c in claimed])
    await queue.renew([JobLease(c.job_id, "L") for c in claimed], 15_000)
    await queue.cancel(claimed[0].job_id)
    await queue.cancel("job5")
    assert len(await queue.control("w1", "0-0", 0)) == 2
    outcomes = ("cancelled", "succeeded", "failed", "retry")
    await queue.settle([Settlement(c.job_id, "L", outcome) for c, outcome in zip(claimed, outcomes, strict=False)])
    await queue.release([JobLease(claimed[4].job_id, "L")])
    await queue.lose([JobLease(claimed[4].job_id, "L")])
    await queue.pause("cfo@1")
    assert (await queue.explain(claimed[4].job_id)).reason == "paused"
    await queue.resume("cfo@1")
    await queue.expire("job4")
    await queue.tick("w1", ["cfo@1"])
    states = await queue.states([j.id for j in jobs])
    assert ["cancelled", "succeeded", "failed", "delayed", "queued", "cancelled"] == states
    assert len(await queue.inbox("c", "0-0", 0)) == 4
    await queue.counters.add_loads("w1", "report-1", {"cfo@1": 2})
    await queue.counters.add_refusals("c", "report-1", {"UnknownAdapter": 1})
    assert {"cfo@1": 1} == (await queue.backlog()).waiting
    assert len(await queue.get_many([j.id for j in jobs])) == 6
    await upkeep_in_one_slot(Queue(node, queue.keys.pool))
    await queue.close()


async def upkeep_in_one_slot(upkeep: Queue) -> None:
    await upkeep.limits("cfo@1", max_depth=10)
    assert () == (await upkeep.dead()).letters
    assert 0 == (await upkeep.purge_dead()).count
    assert 2 == (await upkeep.purge_waiting("cfo@1")).count + (await upkeep.purge_waiting("cfo@1", "delayed 0")).count
    step = await upkeep.fsck()
    while step.cursor:
        assert not step.findings
        step = await upkeep.fsck(step.cursor)
