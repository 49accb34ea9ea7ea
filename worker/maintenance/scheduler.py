"""ChoreScheduler: arq's worker: it enqueues each chore once a tick, hands it to whoever is free, and bounds its time.

A tick is a multiple of a chore's period since 1970 by the server's clock. Which worker enqueues it is decided by the
pool's ChoreBook, in one script, and by nothing else. arq could do it too, by a job id for each tick, but not as well:
it forgets a tick as soon as it is done, so that a worker that stalled for a while would repeat it; it counts by each
host's clock; and it lets a slow chore overlap itself. So its ids stay random, and what it hands out is run once at
most: a chore that was cut off, or that waited too long, is left to the next tick.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Mapping
from datetime import datetime
from typing import Any

import structlog
from arq.connections import ArqRedis
from arq.worker import Function, func
from arq.worker import Worker as ArqWorker

from lorapool.shared.timetable.chores import ChoreBook
from lorapool.worker.maintenance.arq_redis import pack, unpack
from lorapool.worker.maintenance.chores import Facts

CHORE_TIMEOUT_S = 120
WAITS_S = 10  # for a worker that is free; after that its tick is passed over
HEALTH_EVERY_S = 30
log = structlog.get_logger()

Chore = Callable[[], Awaitable[Facts]]


class ChoreScheduler(ArqWorker):
    """``chores``: what to run, by name; ``periods_ms``: how often; ``worker``: the name of this maintenance worker.

    A chore's first tick is the first after the start.
    """

    def __init__(
        self, redis: ArqRedis, book: ChoreBook, worker: str, chores: Mapping[str, Chore], periods_ms: Mapping[str, int]
    ) -> None:
        super().__init__(
            [self._function(name, chore) for name, chore in chores.items()],
            redis_pool=redis,
            queue_name=redis.default_queue_name,
            handle_signals=False,
            retry_jobs=False,
            max_tries=1,
            job_timeout=CHORE_TIMEOUT_S,
            keep_result=0,
            health_check_interval=HEALTH_EVERY_S,
            job_serializer=pack,
            job_deserializer=unpack,
        )
        self._book, self._worker, self._periods_ms = book, worker, periods_ms
        self._ticks_ms: dict[str, int] = {}  # the latest that this worker has seen

    async def run_cron(self, n: datetime, delay: float, num_windows: int = 2) -> None:
        """arq calls this twice a second: enqueue every chore whose tick has come and is this worker's to enqueue."""
        if not self.allow_pick_jobs:  # asked to stop
            return
        now_ms = await self._book.now_ms()
        for chore, every_ms in self._periods_ms.items():
            tick_ms = now_ms // every_ms * every_ms
            if self._ticks_ms.setdefault(chore, tick_ms) != tick_ms:
                self._ticks_ms[chore] = tick_ms
                if await self._book.begin(chore, tick_ms, self._worker):
                    await self.pool.enqueue_job(chore, tick_ms, _queue_name=self.queue_name, _expires=WAITS_S)

    def _function(self, name: str, chore: Chore) -> Function:
        async def run(_ctx: dict[Any, Any], tick_ms: int) -> None:
            await self._run(name, chore, tick_ms)

        return func(run, name=name)  # type: ignore[arg-type]  # arq passes what was enqueued, here a tick

    async def _run(self, name: str, chore: Chore, tick_ms: int) -> None:
        """The chore, and a line in the book about it, also where it failed: the next tick does it again."""
        began_s = time.monotonic()
        try:
            facts = await chore()
        except Exception as error:  # noqa: BLE001 - whatever it is, maintenance goes on
            log.warning("chore failed", chore=name, tick_ms=tick_ms, error=f"{type(error).__name__}: {error}")
            await self._book.end(name, {})
            return
        took_ms = round(1000 * (time.monotonic() - began_s))
        await self._book.end(name, {**facts, "worker": self._worker, "took_ms": took_ms})
        log.debug("chore done", chore=name, tick_ms=tick_ms, worker=self._worker, **facts)
