"""A chore is enqueued once a tick, by the server's clock, whoever asks; and run once at most."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack
from datetime import UTC, datetime

import pytest
from redis.asyncio import Redis

from lorapool.shared.connection import PoolConnection
from lorapool.shared.server.settings import redis_settings
from lorapool.shared.timetable.chores import ChoreBook
from lorapool.worker.maintenance.arq_redis import arq_redis
from lorapool.worker.maintenance.scheduler import WAITS_S, Chore, ChoreScheduler

CLOCK, QUEUE, TASKS = "lp:{default}:clock", "lp:{default}:maintenance", "lp:{default}:arq:job:*"


class SetBook(ChoreBook):
    """Its clock is set by hand; ``seen_ms`` is what a worker that stalled has read, long ago."""

    def __init__(self, redis: Redis) -> None:
        super().__init__(PoolConnection(redis, "default", clock=CLOCK))
        self._redis = redis
        self.seen_ms: int | None = None

    async def set(self, now_ms: int) -> None:
        await self._redis.set(CLOCK, now_ms)

    async def now_ms(self) -> int:
        return self.seen_ms if self.seen_ms is not None else int(await self._redis.get(CLOCK))


class Bench:
    """Schedulers of one pool, each as of a worker of its own; ``runs`` counts what their chore did."""

    def __init__(self, redis_url: str, redis: Redis, stack: AsyncExitStack) -> None:
        self.redis, self.runs = redis, 0
        self._redis_url, self._stack = redis_url, stack

    async def scheduler(self, name: str = "m1", chore: Chore | None = None) -> tuple[ChoreScheduler, SetBook]:
        """A new one, which has seen the first tick, at 10 s."""
        book, client = SetBook(self.redis), arq_redis(redis_settings(self._redis_url))
        self._stack.push_async_callback(client.aclose)
        scheduler = ChoreScheduler(client, book, name, {"fsck": chore or self.work}, {"fsck": 5000})
        scheduler.burst, scheduler.poll_delay_s = True, 0.01
        await book.set(10_000)
        await ask(scheduler)
        return scheduler, book

    async def work(self) -> Mapping[str, int]:
        self.runs += 1
        return {"steps": 1}

    async def enqueued(self, scheduler: ChoreScheduler) -> list[int]:
        """The ticks that wait."""
        return sorted(task.args[0] for task in await scheduler.pool.queued_jobs())

    async def die_running(self) -> None:
        """As a worker does that is killed within a chore, once arq's own lock on it has run out."""
        async for key in self.redis.scan_iter(TASKS):
            await self.redis.incr(key.decode().replace("arq:job:", "arq:retry:"))


@pytest.fixture
async def bench(redis_url: str, redis: Redis) -> AsyncIterator[Bench]:
    async with AsyncExitStack() as stack:
        yield Bench(redis_url, redis, stack)


async def ask(scheduler: ChoreScheduler) -> None:
    await scheduler.run_cron(datetime.now(UTC), 0.5)


async def test_ticks_are_multiples_of_the_period_by_the_servers_clock(bench: Bench):
    """Each once, the first after the start; when the clock was set back, the ticks are those of its new time."""
    scheduler, book = await bench.scheduler()
    for now_ms in (10_000, 14_999, 15_000, 15_500, 21_000, 31_000, 6_000, 9_999, 10_001):
        await book.set(now_ms)
        await ask(scheduler)
        await book.end("fsck", {})
    assert [5_000, 10_000, 15_000, 20_000, 30_000] == await bench.enqueued(scheduler)


async def test_a_tick_is_enqueued_by_one_of_many(bench: Bench):
    """Ten who ask at the same moment: one task."""
    schedulers = [(await bench.scheduler(f"m{number}"))[0] for number in range(10)]
    await bench.redis.set(CLOCK, 15_000)
    await asyncio.gather(*map(ask, schedulers))
    assert [15_000] == await bench.enqueued(schedulers[0])


async def test_a_tick_that_is_done_is_not_enqueued_again(bench: Bench):
    """By a worker that read the time, stalled, and goes on when another has done the tick."""
    first, book = await bench.scheduler("m1")
    stalled, old_book = await bench.scheduler("m2")
    old_book.seen_ms = 15_000
    for now_ms in (15_000, 20_000):
        await book.set(now_ms)
        await ask(first)
        await first.async_run()
    await ask(stalled)
    assert (2, []) == (bench.runs, await bench.enqueued(first))


async def test_who_is_told_to_stop_enqueues_nothing(bench: Bench):
    """It would take none, and leave a task behind that nobody takes."""
    scheduler, book = await bench.scheduler()
    scheduler.allow_pick_jobs = False
    await book.set(15_000)
    await ask(scheduler)
    assert [] == await bench.enqueued(scheduler)


async def test_a_chore_that_was_cut_off_is_left_to_the_next_tick(bench: Bench):
    """arq hands a dead worker's task out again; it is not run, and nothing of it stays."""
    scheduler, book = await bench.scheduler()
    await book.set(15_000)
    await ask(scheduler)
    await bench.die_running()
    await scheduler.async_run()
    assert (0, 0) == (bench.runs, await bench.redis.exists(QUEUE))
    await book.set(30_000)  # who begins a tick and dies holds up the next for 15 s
    await ask(scheduler)
    await scheduler.async_run()
    assert 1 == bench.runs


async def test_what_waited_too_long_is_passed_over(bench: Bench):
    """A host whose clock is an hour ahead may have enqueued it, and no other would take it before."""
    scheduler, book = await bench.scheduler()
    await book.set(15_000)
    await ask(scheduler)
    [key] = [key async for key in bench.redis.scan_iter(TASKS)]
    assert 0 < await bench.redis.pttl(key) <= 1000 * WAITS_S
    await bench.redis.delete(key)  # as expired
    await scheduler.async_run()
    assert (0, 0) == (bench.runs, await bench.redis.exists(QUEUE))


async def test_a_chore_that_fails_ends_its_tick(bench: Bench):
    """The next is begun in time; the book has what the last one that worked did, and who."""
    failing = True

    async def work() -> Mapping[str, int]:
        bench.runs += 1
        if failing:
            raise RuntimeError("once is enough")
        return {"steps": 1}

    scheduler, book = await bench.scheduler("m1", work)
    for now_ms in (15_000, 20_000):
        await book.set(now_ms)
        await ask(scheduler)
        await scheduler.async_run()
        failing = False
    entry = await book.read()
    assert (2, "m1", "1", "20000") == (bench.runs, entry["fsck.worker"], entry["fsck.steps"], entry["fsck.tick_ms"])
