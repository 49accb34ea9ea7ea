"""saq, with its defaults; a result lives for its ten minutes."""

from __future__ import annotations

import asyncio
from typing import Any

from saq import Queue, Worker

from benchmarks.queue_peers.contest import DrainClock, in_waves, main, one_by_one


class Saq:
    def enqueue(self, url: str, jobs: int) -> float:
        async def run() -> float:
            queue = Queue.from_url(url)
            await queue.connect()
            return await in_waves(jobs, lambda: queue.enqueue("noop"))

        return asyncio.run(run())

    def work(self, url: str, concurrency: int, clock: DrainClock) -> None:
        async def noop(_context: dict[str, Any]) -> None:
            clock.tick()

        async def echo(_context: dict[str, Any], *, number: int) -> int:
            return number

        asyncio.run(Worker(Queue.from_url(url), [("noop", noop), ("echo", echo)], concurrency=concurrency).start())

    def stored(self, url: str) -> int:
        async def run() -> int:
            queue = Queue.from_url(url)
            await queue.connect()
            records = {key async for key in queue.redis.scan_iter("saq:job:*", count=1000)}
            incomplete: int = await queue.count("incomplete")
            return len(records) - incomplete

        return asyncio.run(run())

    def round_trips(self, url: str, count: int) -> list[float]:
        async def run() -> list[float]:
            queue = Queue.from_url(url)
            await queue.connect()
            return await one_by_one(count, lambda number: queue.apply("echo", number=number))

        return asyncio.run(run())


if __name__ == "__main__":
    main(Saq())
