"""arq, with its defaults. It looks for work twice a second, which caps how fast it drains."""

from __future__ import annotations

import asyncio
from typing import Any

from arq import create_pool
from arq.connections import ArqRedis, RedisSettings
from arq.worker import Worker, func

from benchmarks.queue_peers.contest import DrainClock, in_waves, main, one_by_one

POLL_DELAY_S = 0.5  # arq's default


class Arq:
    """``poll_delay_s``: how often worker and awaiter look."""

    def __init__(self, poll_delay_s: float = POLL_DELAY_S) -> None:
        self._poll_delay_s = poll_delay_s

    def enqueue(self, url: str, jobs: int) -> float:
        async def run() -> float:
            pool = await _connect(url)
            return await in_waves(jobs, lambda: pool.enqueue_job("noop"))

        return asyncio.run(run())

    def work(self, url: str, concurrency: int, clock: DrainClock) -> None:
        async def noop(_context: dict[str, Any]) -> None:
            clock.tick()

        async def echo(_context: dict[str, Any], number: int) -> int:
            return number

        async def run() -> None:
            worker = Worker(
                functions=[func(noop, name="noop"), func(echo, name="echo")],
                redis_settings=RedisSettings.from_dsn(url),
                max_jobs=concurrency,
                poll_delay=self._poll_delay_s,
                log_results=False,
                handle_signals=False,
            )
            await worker.main()

        asyncio.run(run())

    def stored(self, url: str) -> int:
        async def run() -> int:
            pool = await _connect(url)
            return len([key async for key in pool.scan_iter("arq:result:*", count=1000)])

        return asyncio.run(run())

    def round_trips(self, url: str, count: int) -> list[float]:
        async def run() -> list[float]:
            pool = await _connect(url)

            async def ask(number: int) -> object:
                job = await pool.enqueue_job("echo", number)
                assert job is not None
                return await job.result(timeout=30, poll_delay=self._poll_delay_s)

            return await one_by_one(count, ask)

        return asyncio.run(run())


async def _connect(url: str) -> ArqRedis:
    return await create_pool(RedisSettings.from_dsn(url))


if __name__ == "__main__":
    main(Arq())
