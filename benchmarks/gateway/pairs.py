"""A job by the Python client, then the same over HTTP, then again: pair by pair, so that noise falls on both alike.

``python -m benchmarks.gateway.pairs run --redis-url URL --address HOST:PORT --body JSON --count N``, a process of its
own; all times go to standard output as a JSON line.
"""

from __future__ import annotations

import argparse
import asyncio
import time

import uvloop

from benchmarks.gateway.http_load import connected, request_of
from benchmarks.queue.ours import AGENT, adapter_name
from benchmarks.queue_peers.contest import say
from lorapool.producer.client.client import Client

WARM = 10  # pairs that are not counted


async def pairs(arguments: argparse.Namespace) -> None:
    request = request_of(arguments.address, "/v1/chat/completions", arguments.body)
    [connection] = await connected(arguments.address, 1)
    client_ms, http_ms = list[float](), list[float]()
    async with Client(arguments.redis_url, agent=AGENT) as client:
        for _ in range(WARM + arguments.count):
            began = time.perf_counter()
            job = await client.submit(adapter_name(0), messages=[{"role": "user", "content": "x"}], max_new_tokens=1)
            await job.result(60)
            client_ms.append(1000 * (time.perf_counter() - began))
            answer = await connection.ask(request)
            assert answer.status == 200, answer.body[:300]
            http_ms.append(1000 * answer.seconds)
    connection.close()
    say(client_ms=client_ms[WARM:], http_ms=http_ms[WARM:])


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("role", choices=["run"])
    parser.add_argument("--redis-url", required=True)
    parser.add_argument("--address", required=True)
    parser.add_argument("--body", required=True)
    parser.add_argument("--count", type=int, default=200)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(pairs(parser.parse_args()))


if __name__ == "__main__":
    main()
