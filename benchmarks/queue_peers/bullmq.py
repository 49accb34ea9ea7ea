"""BullMQ's Python client: Lua scripts and a token lock, as ours; completed jobs keep their return value."""

from __future__ import annotations

import asyncio
from typing import Any

from bullmq import Queue, QueueEvents, Worker

from benchmarks.queue_peers.contest import DrainClock, in_waves, main, one_by_one

NAME = "bench"


class BullMQ:
    def enqueue(self, url: str, jobs: int) -> float:
        async def run() -> float:
            queue = Queue(NAME, {"connection": url})
            await queue.getCompletedCount()
            seconds = await in_waves(jobs, lambda: queue.add("noop", {}))
            await queue.close()
            return seconds

        return asyncio.run(run())

    def work(self, url: str, concurrency: int, clock: DrainClock) -> None:
        async def process(job: Any, _token: str) -> int:
            if job.name == "echo":
                return int(job.data["number"])
            clock.tick()
            return 1

        async def run() -> None:
            Worker(NAME, process, {"connection": url, "concurrency": concurrency})
            await asyncio.Event().wait()

        asyncio.run(run())

    def stored(self, url: str) -> int:
        async def run() -> int:
            queue = Queue(NAME, {"connection": url})
            count = await queue.getCompletedCount()
            await queue.close()
            return int(count)

        return asyncio.run(run())

    def round_trips(self, url: str, count: int) -> list[float]:
        return asyncio.run(_round_trips(url, count))


async def _round_trips(url: str, count: int) -> list[float]:
    queue, events = Queue(NAME, {"connection": url}), QueueEvents(NAME, {"connection": url})
    answers: dict[str, asyncio.Future[int]] = {}

    def completed(event: dict[str, Any], *_rest: Any) -> None:
        answer = answers.setdefault(str(event["jobId"]), asyncio.get_running_loop().create_future())
        answer.set_result(int(event["returnvalue"]))

    events.on("completed", completed)
    await asyncio.sleep(0.5)  # until it listens

    async def ask(number: int) -> int:
        job = await queue.add("echo", {"number": number})
        return await answers.setdefault(str(job.id), asyncio.get_running_loop().create_future())

    milliseconds = await one_by_one(count, ask)
    await events.close()
    await queue.close()
    return milliseconds


if __name__ == "__main__":
    main(BullMQ())
