"""One round of ours: a pool of no-op workers drains what a client enqueued and awaits; its round trips; its claims.

Peers have rounds of the same shape (benchmarks.queue_peers.rounds). Knows no rounds' number and no report.
"""

from __future__ import annotations

import asyncio
import sys
import time
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

from benchmarks.queue.ours import AGENT, adapter_name
from benchmarks.queue.processes import Talker, ask, talking
from benchmarks.queue.server import Meter
from lorapool.shared.catalog.catalog import AdapterRecord, Catalog, PoolConfig
from lorapool.shared.connection import PoolConnection
from lorapool.shared.fleet.membership import Membership
from lorapool.shared.fleet.requests import WorkerRequests
from lorapool.shared.job import Job, SamplingParams
from lorapool.shared.queue.client import ClientQueue
from lorapool.shared.queue.operator import OperatorQueue
from lorapool.shared.queue.worker import WorkerQueue
from lorapool.shared.server.keys import Keys, PoolKeys
from lorapool.shared.server.redis_client import connect
from lorapool.shared.server.settings import redis_settings

OURS = "benchmarks.queue.ours"
NO_LIMIT = 1_000_000
REGISTERED_AT_A_TIME = 32
CLAIMS = 100  # of one look at what a claim costs
CLAIM_JOBS = 8


@dataclass(frozen=True)
class Case:
    """How a pool is set up. ``awaited``: a client process waits for every result meanwhile."""

    workers: int = 1
    adapters: int = 1
    claim_size: int = 32
    awaited: bool = True

    def __str__(self) -> str:
        fields = f"{self.workers} workers, {self.adapters} adapters, claims of {self.claim_size}"
        return fields if self.awaited else f"{fields}, not awaited"


def drain(case: Case, url: str, jobs: int, meter: Meter) -> dict[str, Any]:
    """Enqueued and drained jobs a second, CPU time a job, and what the server did for each job drained."""
    set_up(url, case.adapters, meter)
    role = "await" if case.awaited else "enqueue"
    with ExitStack() as stack:
        workers = [stack.enter_context(_worker(url, case)) for _ in range(case.workers)]
        _freeze_once_alive(workers, meter)
        client = stack.enter_context(
            talking(sys.executable, OURS, role, redis_url=url, count=jobs, adapters=case.adapters)
        )
        enqueued = client.hear("enqueued")
        meter.start()
        for worker in workers:
            worker.thaw()
        client_cpu_s = _until_done(client, workers, case, jobs, meter)
        work = meter.read()
        clocks = [_clock(worker) for worker in workers]
    first_s = min(clock["first_s"] for clock in clocks if clock["rows"])
    return {
        "enqueued_jobs_s": jobs / enqueued["seconds"],
        "drained_jobs_s": jobs / (max(clock["last_s"] for clock in clocks) - first_s),
        "worker_cpu_us_job": round(sum(clock["cpu_s"] for clock in clocks) / jobs * 1e6, 1),
        "client_cpu_us_job": round(client_cpu_s / jobs * 1e6, 1),
        **work.per_job(jobs),
    }


def round_trips(url: str, count: int, meter: Meter) -> list[float]:
    """Milliseconds from submit to result, one job after another, on an idle worker."""
    set_up(url, 1, meter)
    with _worker(url, Case()):
        heard = ask(sys.executable, OURS, "round-trips", "milliseconds", redis_url=url, count=count)
    milliseconds: list[float] = heard["milliseconds"]
    return milliseconds


def claim_us(url: str, registered: int, backlogged: int, meter: Meter) -> float:
    """Mean server time of a claim with so many adapters registered, and work waiting for some of them."""
    set_up(url, registered, meter)
    return asyncio.run(_claim_us(url, backlogged, meter))


def set_up(url: str, adapters: int, meter: Meter) -> None:
    """An empty server but for a pool with that many ready adapters, none of which is ever full."""
    meter.redis.flushall()
    asyncio.run(register(url, adapters))


async def register(url: str, adapters: int, agent_window: int = NO_LIMIT) -> None:
    """So many adapters, ready and open, as if a worker had found them good."""
    connection = PoolConnection(connect(redis_settings(url)), "default")
    partition = connection.partition()
    queue, requests = OperatorQueue(partition), WorkerRequests(partition, Membership(connection))
    catalog = Catalog(connection, requests, lambda _: queue)
    await catalog.create_or_check_config(PoolConfig(base_model="noop", digest="0" * 64, dtype="float32"))

    async def register_one(index: int) -> None:
        name, digest = adapter_name(index), f"{index:064d}"
        record = await catalog.register(AdapterRecord(id=name, version="1", digest=digest, uri=f"file:///{name}"))
        await catalog.decide(record.ref, "ready")
        await queue.open_adapter(record.ref, digest, max_depth=NO_LIMIT, agent_window=agent_window)

    for start in range(0, adapters, REGISTERED_AT_A_TIME):
        await asyncio.gather(*map(register_one, range(start, min(start + REGISTERED_AT_A_TIME, adapters))))
    await connection.aclose()


async def _claim_us(url: str, backlogged: int, meter: Meter) -> float:
    connection = PoolConnection(connect(redis_settings(url)), "default")
    partition = connection.partition()
    clients, queue = ClientQueue(partition, Membership(connection)), WorkerQueue(partition)
    params = SamplingParams(max_new_tokens=1)
    refs = [f"{adapter_name(index)}@1" for index in range(backlogged)]
    jobs = [
        Job(id=f"job-{number}", ref=refs[number % backlogged], prompt="x", params=params, agent=AGENT)
        for number in range(max(backlogged, (CLAIMS + 1) * CLAIM_JOBS))
    ]
    await clients.enqueue_many(jobs)
    await queue.claim("w", "warm-up", refs[:1], 1, 1, 60_000)
    meter.start()
    for number in range(CLAIMS):
        preferred = [refs[(number + step) % backlogged] for step in range(CLAIM_JOBS)]
        await queue.claim("w", f"lease-{number}", preferred, CLAIM_JOBS, CLAIM_JOBS, 60_000, per_adapter=1)
    cost_us = meter.script_us()
    await connection.aclose()
    return cost_us


def _worker(url: str, case: Case) -> Any:
    return talking(sys.executable, OURS, "work", redis_url=url, claim_size=case.claim_size)


def _clock(worker: Talker) -> dict[str, Any]:
    worker.ask_to_stop()
    return worker.hear("rows")


def _freeze_once_alive(workers: list[Talker], meter: Meter) -> None:
    """All begin at the same moment, on a backlog that is there: nobody's start-up is part of the figure."""
    give_up_at = time.monotonic() + 60
    while meter.redis.scard(PoolKeys("default").serving) < len(workers):  # type: ignore[operator]  # as below
        assert time.monotonic() < give_up_at, "not all workers came up"
        time.sleep(0.02)
    for worker in workers:
        worker.freeze()


def _until_done(client: Talker, workers: list[Talker], case: Case, jobs: int, meter: Meter) -> float:
    """Seconds of CPU that the client took to await its results, none where it does not."""
    if case.awaited:
        heard = client.hear("awaited", beside=workers)
        assert heard["awaited"] == jobs, f"{heard['awaited']} results of {jobs} jobs"
        return float(heard["cpu_s"])
    key, give_up_at = Keys("default").agent(AGENT), time.monotonic() + 120
    while int(meter.redis.hget(key, "succeeded") or 0) < jobs:  # type: ignore[arg-type]  # redis types it for asyncio too
        assert time.monotonic() < give_up_at, f"not drained: {meter.redis.hgetall(key)!r}"
        for worker in workers:
            worker.check()
        time.sleep(0.02)
    return 0.0
