"""lorapool as a contestant: its own Client, queue and worker loop over the no-op model.

``python -m benchmarks.queue.ours ROLE …``, each role a process, as the peers are run: ``enqueue``, ``work``,
``stored``, ``round-trips``, and ``await``, which enqueues and then waits for every result.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
import time
from collections.abc import Sequence

from benchmarks.queue.noop_model import Clock, NoopModel, served_in_process
from benchmarks.queue_peers.contest import one_by_one, say
from lorapool.producer.client.client import Client
from lorapool.producer.client.handle import JobHandle
from lorapool.producer.client.request import Request
from lorapool.shared import logs
from lorapool.shared.job import Result
from lorapool.shared.server.settings import redis_settings
from lorapool.worker.cli import serve
from lorapool.worker.config import WorkerConfig

AGENT = "bench"
ENQUEUE_CHUNK = 512  # requests of one submit_many
GIVE_UP_S = 120.0


def adapter_name(index: int) -> str:
    return f"adapter-{index:05d}"


def main(argv: Sequence[str] | None = None) -> None:
    """One role; figures go to standard output as JSON lines."""
    arguments = _parser().parse_args(argv)
    logs.configure("warning", json=True)
    roles = {"enqueue": _enqueue, "await": _await, "round-trips": _round_trips, "stored": _stored, "work": _work}
    asyncio.run(roles[arguments.role](arguments))


async def _enqueue(arguments: argparse.Namespace) -> None:
    async with _client(arguments) as client:
        await _submit(client, arguments)


async def _await(arguments: argparse.Namespace) -> None:
    async with _client(arguments) as client:
        handles = await _submit(client, arguments)
        began_s = time.process_time()
        results = await client.gather(handles, timeout=GIVE_UP_S)
        good = sum(isinstance(result, Result) for result in results)
        say(awaited=good, cpu_s=time.process_time() - began_s)


async def _round_trips(arguments: argparse.Namespace) -> None:
    async with _client(arguments) as client:

        async def ask(number: int) -> int:
            job = await client.submit(_adapters(arguments, number), "x", max_new_tokens=1)
            await job.result(timeout=GIVE_UP_S)
            return number

        await one_by_one(5, ask)  # the adapter is loaded, the inbox reader runs
        say(milliseconds=await one_by_one(arguments.count, ask))


async def _stored(arguments: argparse.Namespace) -> None:
    async with _client(arguments) as client:
        stats = await client.agent_stats(AGENT)
        say(stored=stats.get("succeeded", 0))


async def _work(arguments: argparse.Namespace) -> None:
    settings, clock = redis_settings(arguments.redis_url), Clock()
    config = WorkerConfig.parse(
        worker_id=arguments.worker_id,
        base_model="noop",
        max_batch=arguments.concurrency,
        claim_size=arguments.claim_size,
        claim_ahead=2 * arguments.concurrency,  # as Dramatiq prefetches: claims overlap with settling
        slots=arguments.slots,
    )
    status = await serve(config, settings, served_in_process(NoopModel(config, clock, arguments.step_ms / 1000)))
    say(rows=clock.rows, first_s=clock.first_s, last_s=clock.last_s, cpu_s=clock.cpu_s)
    sys.exit(status)


def _client(arguments: argparse.Namespace) -> Client:
    return Client(arguments.redis_url, agent=AGENT)


async def _submit(client: Client, arguments: argparse.Namespace) -> list[JobHandle]:
    requests = [Request(_adapters(arguments, i), "x", params={"max_new_tokens": 1}) for i in range(arguments.count)]
    handles: list[JobHandle] = []
    began = time.perf_counter()
    for start in range(0, len(requests), ENQUEUE_CHUNK):
        answers = await client.submit_many(requests[start : start + ENQUEUE_CHUNK])
        handles += [answer for answer in answers if isinstance(answer, JobHandle)]
    assert len(handles) == len(requests), f"{len(requests) - len(handles)} refused"
    say(enqueued=len(handles), seconds=time.perf_counter() - began)
    return handles


def _adapters(arguments: argparse.Namespace, index: int) -> str:
    return adapter_name(index % arguments.adapters)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser()
    parser.add_argument("role", choices=["enqueue", "await", "work", "stored", "round-trips"])
    parser.add_argument("--redis-url", required=True)
    parser.add_argument("--count", type=int, default=0)
    parser.add_argument("--concurrency", type=int, default=32)
    parser.add_argument("--adapters", type=int, default=1)
    parser.add_argument("--claim-size", type=int, default=32)
    parser.add_argument("--step-ms", type=float, default=0.0)
    parser.add_argument("--slots", type=int, default=64)
    parser.add_argument("--worker-id", default=f"worker-{os.getpid()}")
    return parser


if __name__ == "__main__":
    main()
