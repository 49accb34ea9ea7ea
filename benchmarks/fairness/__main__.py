"""``python -m benchmarks.fairness --out FILE.json``: eight worker processes, a thousand adapters, one real server.

Jobs arrive at random over adapters of Zipf popularity. First more than the workers can do, once with each policy: how
many adapters are loaded for a job, how long jobs wait. Then less than they can do, with and without one agent that
wants ten thousand more at once. Takes about four minutes, most of them asleep.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks import hardware
from benchmarks.fairness.worker import LOAD_S, ROWS, SLOTS, STEP_S
from benchmarks.queue.ours import adapter_name
from benchmarks.queue.processes import talking
from benchmarks.queue.rounds import register
from benchmarks.queue.server import Meter
from benchmarks.simulation.workload import Traffic
from lorapool.producer.client.client import Client
from lorapool.producer.client.handle import JobHandle
from lorapool.producer.client.request import Request
from lorapool.producer.local.process import scratch_folder
from lorapool.producer.local.server import embedded_server
from lorapool.shared.connection import PoolConnection
from lorapool.shared.fleet.membership import Membership
from lorapool.shared.queue.client import ClientQueue
from lorapool.shared.server.keys import PoolKeys
from lorapool.shared.server.redis_client import connect
from lorapool.shared.server.settings import redis_settings

WORKERS, ADAPTERS, AGENT_WINDOW = 8, 1_000, 64
MEAN_TOKENS = 32
SERVICE_S = MEAN_TOKENS * STEP_S
OVERLOAD, CALM_LOAD, DURATION_S = 1.1, 0.7, 25.0
WARM_UP = 0.25  # of the duration: jobs that arrive before are not counted
SETTLING_S = SERVICE_S * 2  # after the last arrival, for those that run
FLOOD_JOBS, FLOOD_ADAPTER, FLOODER = 10_000, 50, "flooder"
POLICIES = ("affinity", "arrival", "random")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.fairness", description=__doc__)
    parser.add_argument("--out", required=True, help="where the JSON goes")
    arguments = parser.parse_args()
    console = Console(stderr=True)
    with ExitStack() as stack:
        url = stack.enter_context(embedded_server(stack.enter_context(scratch_folder())))
        status = stack.enter_context(console.status("fairness"))
        by_policy: dict[str, Any] = {}
        for policy in POLICIES:
            status.update(f"{policy} at load {OVERLOAD:g}")
            by_policy[policy] = _run(url, policy, OVERLOAD)
        for name, flood in (("calm", False), ("flooded", True)):
            status.update(f"{name}, load {CALM_LOAD:g}")
            by_policy[name] = _run(url, "affinity", CALM_LOAD, flood=flood)
    figures = {"hardware": hardware.describe(), "shape": _shape(), **by_policy, **_ratios(by_policy)}
    Path(arguments.out).write_text(json.dumps(figures, indent=2) + "\n")
    _show(figures)


def _shape() -> dict[str, float]:
    return {
        "workers": WORKERS,
        "adapters": ADAPTERS,
        "rows": ROWS,
        "slots": SLOTS,
        "mean_job_s": SERVICE_S,
        "load_s": LOAD_S,
        "overload": OVERLOAD,
        "calm_load": CALM_LOAD,
        "duration_s": DURATION_S,
    }


def _ratios(by_policy: dict[str, Any]) -> dict[str, float]:
    ours = by_policy["affinity"]
    return {
        "loads_to_random": ours["loads_per_job"] / by_policy["random"]["loads_per_job"],
        "p99_to_arrival": ours["p99_wait_s"] / by_policy["arrival"]["p99_wait_s"],
        "flood_p95_ratio": by_policy["flooded"]["p95_wait_s"] / by_policy["calm"]["p95_wait_s"],
    }


def _run(url: str, policy: str, load: float, *, flood: bool = False) -> dict[str, float]:
    meter = Meter(url)
    meter.redis.flushall()
    asyncio.run(register(url, ADAPTERS, agent_window=AGENT_WINDOW))
    with ExitStack() as stack:
        for number in range(WORKERS):
            stack.enter_context(_worker(url, f"w{number}", policy))
        give_up_at = time.monotonic() + 60
        while meter.redis.scard(PoolKeys("default").serving) < WORKERS:  # type: ignore[operator]  # typed for asyncio too
            assert time.monotonic() < give_up_at, "not all workers came up"
            time.sleep(0.05)
        figures = asyncio.run(_drive(url, load, flood=flood))
        meter.redis.flushall()  # nothing to drain
    meter.close()
    return figures


@contextmanager
def _worker(url: str, name: str, policy: str) -> Iterator[None]:
    module = "benchmarks.fairness.worker"
    with talking(sys.executable, module, "work", 0.2, redis_url=url, worker_id=name, policy=policy):
        yield


async def _drive(url: str, load: float, *, flood: bool) -> dict[str, float]:
    """Send the traffic; what still waits a little after the last arrival counts with the wait it has had."""
    connection = PoolConnection(connect(redis_settings(url)), "default")
    queue = ClientQueue(connection.partition(), Membership(connection))
    async with Client(url) as client:
        pouring = asyncio.create_task(_pour(client)) if flood else None
        ids = await _send(client, load)
        if pouring is not None:
            pouring.cancel()
        await asyncio.sleep(SETTLING_S)
        loads = sum(int(worker["adapter_loads"]) for worker in await client.workers())
        waits = await _waits_s(queue, ids, await connection.server.now_ms())
        flooded = (await client.agent_stats(FLOODER)).get("claimed", 0)
    await connection.aclose()
    begun = sum(began for began, _ in waits)
    counted = sorted(wait_s for _, wait_s in waits[round(WARM_UP * len(waits)) :])
    quantiles = {f"p{share}_wait_s": counted[int(share / 100 * (len(counted) - 1))] for share in (50, 95, 99)}
    return {
        "jobs": len(ids),
        "begun": begun,
        "flood_jobs": flooded,
        "loads_per_job": loads / (begun + flooded),
        **quantiles,
    }


async def _send(client: Client, load: float) -> list[str]:
    """Each job at its time, on average; the ids, in order."""
    traffic = Traffic(ADAPTERS, load * WORKERS * ROWS / SERVICE_S, MEAN_TOKENS, DURATION_S, seed=1)
    began_at, ids = time.monotonic(), list[str]()
    batch: list[Request] = []
    for job in traffic.jobs():
        if (ahead_s := began_at + job.arrived_s - time.monotonic()) > 0.01:
            ids += await _submit(client, batch)
            batch = []
            await asyncio.sleep(ahead_s)
        adapter = adapter_name(int(job.ref.removeprefix("adapter-").partition("@")[0]))
        params = {"max_new_tokens": max(1, round(job.service_s))}
        batch.append(Request(adapter, "x", agent=f"agent-{job.agent}", params=params))
    return ids + await _submit(client, batch)


async def _submit(client: Client, requests: list[Request]) -> list[str]:
    handles = await client.submit_many(requests)
    refused = [handle for handle in handles if not isinstance(handle, JobHandle)]
    assert not refused, f"refused: {refused[0]}"
    return [handle.id for handle in handles if isinstance(handle, JobHandle)]


async def _pour(client: Client) -> None:
    """The flooder keeps as many jobs waiting as its window admits."""
    await asyncio.sleep(WARM_UP * DURATION_S)
    left, request = (
        FLOOD_JOBS,
        Request(adapter_name(FLOOD_ADAPTER), "x", agent=FLOODER, params={"max_new_tokens": MEAN_TOKENS}),
    )
    while left:
        answers = await client.submit_many([request] * min(left, AGENT_WINDOW))
        left -= sum(isinstance(answer, JobHandle) for answer in answers)
        await asyncio.sleep(STEP_S)


async def _waits_s(queue: ClientQueue, ids: list[str], now_ms: int) -> list[tuple[bool, float]]:
    """For each job, in order of arrival: whether it began, and seconds from submission to its first token."""
    waits = []
    for start in range(0, len(ids), 64):
        for record in await queue.results(ids[start : start + 64]):
            assert record is not None
            first_ms = int(record.get("first_token_ms") or now_ms)
            waits.append((bool(record.get("started_ms")), (first_ms - int(record["submitted_ms"])) / 1000))
    return waits


def _show(figures: dict[str, Any]) -> None:
    table = Table("run", "jobs", "begun", "flood jobs", "loads/job", "p50 s", "p95 s", "p99 s")
    for name in (*POLICIES, "calm", "flooded"):
        row = figures[name]
        waits = (f"{row[wait]:.2f}" for wait in ("p50_wait_s", "p95_wait_s", "p99_wait_s"))
        counts = (f"{row[count]:,}" for count in ("jobs", "begun", "flood_jobs"))
        table.add_row(name, *counts, f"{row['loads_per_job']:.3f}", *waits)
    console = Console()
    console.print(table)
    console.print(f"loads to random's: {figures['loads_to_random']:.2f} (at most 0.33 wanted)")
    console.print(f"p99 wait to order of arrival's: {figures['p99_to_arrival']:.2f} (at most 1.2 wanted)")
    console.print(
        f"others' p95 under a flood: {figures['flood_p95_ratio']:.2f} times the calm one (at most 1.5 wanted)"
    )


if __name__ == "__main__":
    main()
