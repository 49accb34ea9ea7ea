"""Maintenance: one maintenance worker of a pool: its chores by arq, and this machine's cache of adapters swept.

Any number of these share the chores. The protocol depends on none: while no maintenance worker lives, jobs run, leases
are reaped and deadlines kept; only due runs of the timetable wait. Knows no ticks: when a chore is due, and that it is
done once, is ChoreScheduler's.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import signal
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import structlog

from lorapool.shared.catalog.catalog import Catalog
from lorapool.shared.connection import PoolConnection
from lorapool.shared.errors import LorapoolError, PoolMismatch, RedisAuthFailed
from lorapool.shared.fleet.membership import Membership
from lorapool.shared.fleet.requests import WorkerRequests
from lorapool.shared.queue.client import ClientQueue
from lorapool.shared.queue.operator import OperatorQueue
from lorapool.shared.server.failures import translated
from lorapool.shared.server.redis_client import connect
from lorapool.shared.server.settings import RedisSettings
from lorapool.shared.tasks import cancel_and_wait
from lorapool.shared.timetable.chores import ChoreBook
from lorapool.shared.timetable.timetable import Timetable
from lorapool.worker.adapters.cache_folder import CacheFolder
from lorapool.worker.maintenance.arq_redis import arq_redis
from lorapool.worker.maintenance.chores import Chores
from lorapool.worker.maintenance.due_runs import DueRuns
from lorapool.worker.maintenance.scheduler import ChoreScheduler

STOP_S = 10.0  # for a chore that runs when the worker is asked to stop
PAUSE_S = 1.0  # after an outage
log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Periods:
    """Seconds between a chore's ticks, and between looks at the adapter cache."""

    schedule: float = 5
    fsck: float = 60
    dead_letters: float = 900
    dead_workers: float = 60
    cache: float = 600

    def ms(self, chore: str) -> int:
        return max(1, round(1000 * float(getattr(self, chore))))


class Maintenance:
    """One maintenance worker; ``cache`` is this machine's folder of fetched adapters, kept within its budget."""

    def __init__(
        self, settings: RedisSettings, periods: Periods, cache: CacheFolder | None = None, name: str | None = None
    ) -> None:
        self._settings, self._periods, self._cache = settings, periods, cache
        self.name = name or f"m-{secrets.token_hex(4)}"
        self._connection = connection = PoolConnection(connect(settings), settings.pool)
        self._members, self._book = Membership(connection), ChoreBook(connection)
        requests = WorkerRequests(connection.partition(), self._members)
        self._catalog = Catalog(connection, requests, self._operator_queue)
        self._scheduler: ChoreScheduler | None = None
        self._stopping = asyncio.Event()

    async def run(self) -> None:
        """Until ``stop``. Raises RedisAuthFailed, PoolMismatch (another layout); outlives outages."""
        log.info("starting maintenance", worker=self.name, pool=self._settings.pool, redis=self._settings.redacted_url)
        tasks = [asyncio.create_task(self._supervise())]
        if self._cache is not None:
            tasks.append(asyncio.create_task(self._sweep(self._cache)))
        stopping = asyncio.create_task(self._stopping.wait())
        try:
            await asyncio.wait([stopping, *tasks], return_when=asyncio.FIRST_COMPLETED)
            await self._let_finish()
        finally:
            await cancel_and_wait(stopping, *tasks)
            await self._end_scheduler()
            await self._close()
        for task in tasks:
            if not task.cancelled() and (error := task.exception()) is not None:
                raise error
        log.info("stopped", worker=self.name)

    def stop(self) -> None:
        """Let a chore that runs finish, and return."""
        self._stopping.set()

    def stop_on_signals(self) -> None:
        """SIGTERM and SIGINT call ``stop``."""
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, self.stop)

    # -- the pool's chores

    async def _supervise(self) -> None:
        """A scheduler; another one whenever an outage has ended it."""
        while True:
            try:
                self._scheduler = self._new_scheduler(await self._chores())
                log.info("ready", worker=self.name, pool=self._settings.pool)
                await self._scheduler.async_run()
            except Exception as error:
                ours = error if isinstance(error, LorapoolError) else translated(error)
                if ours is None:
                    raise
                if isinstance(ours, RedisAuthFailed | PoolMismatch):
                    raise ours from None
                log.warning("redis did not answer, trying again", error=str(ours), pause_s=PAUSE_S)
            await self._end_scheduler()
            await asyncio.sleep(PAUSE_S)

    def _new_scheduler(self, chores: Chores) -> ChoreScheduler:
        by_name = chores.by_name()
        periods_ms = {name: self._periods.ms(name) for name in by_name}
        return ChoreScheduler(arq_redis(self._settings), self._book, self.name, by_name, periods_ms)

    async def _let_finish(self) -> None:
        """Begin no more chores, and wait for those that run."""
        if self._scheduler is not None:
            self._scheduler.allow_pick_jobs = False
            if running := _unfinished(self._scheduler):
                await asyncio.wait(running, timeout=STOP_S)

    async def _end_scheduler(self) -> None:
        """End what is left of it."""
        scheduler, self._scheduler = self._scheduler, None
        if scheduler is not None:
            await cancel_and_wait(*_unfinished(scheduler))
            await asyncio.gather(*scheduler.tasks.values(), return_exceptions=True)  # logged when they happened
            await scheduler.pool.aclose()

    async def _chores(self) -> Chores:
        await self._catalog.layout.check()
        config = await self._catalog.config()
        queues = [self._operator_queue(partition) for partition in range(config.partitions if config else 1)]
        due_runs = DueRuns(Timetable(self._connection), self._catalog, self._client_queue)
        return Chores(self._members, self._book, queues, due_runs)

    def _operator_queue(self, partition: int) -> OperatorQueue:
        return OperatorQueue(self._connection.partition(partition))

    def _client_queue(self, partition: int) -> ClientQueue:
        return ClientQueue(self._connection.partition(partition), self._members)

    async def _close(self) -> None:
        await self._connection.aclose()

    # -- this machine's own

    async def _sweep(self, cache: CacheFolder) -> None:
        """No chore of the pool: a folder is swept by the workers of its machine."""
        while True:
            try:
                swept = await asyncio.to_thread(cache.sweep)
            except OSError as error:
                log.warning("cache not swept", folder=str(cache.folder), error=str(error))
            else:
                write = log.info if swept.removed else log.debug
                write("cache swept", folder=str(cache.folder), **vars(swept))
            await asyncio.sleep(self._periods.cache)


def _unfinished(scheduler: ChoreScheduler) -> list[asyncio.Task[Any]]:
    return [task for task in scheduler.tasks.values() if not task.done()]


async def maintain(make: Callable[[], Maintenance]) -> int:
    """Run until SIGTERM; the exit status."""
    _log_as_we_do("arq")
    asyncio.get_running_loop().set_exception_handler(_left_behind)
    maintenance = make()
    maintenance.stop_on_signals()
    with suppress(asyncio.CancelledError):
        await maintenance.run()
    return 0


def _left_behind(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """What a call that arq shields from its own end met while the server was away is a line, not a traceback."""
    error = context.get("exception")
    if type(error).__module__.startswith("redis."):
        log.warning("redis did not answer, and nobody waits any more", error=f"{type(error).__name__}: {error}")
    else:
        loop.default_exception_handler(context)


class _OurLog(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        log.warning("arq", message=record.getMessage())


def _log_as_we_do(logger: str) -> None:
    """What arq warns of becomes a line like all others."""
    logging.getLogger(logger).handlers = [_OurLog(logging.WARNING)]
    logging.getLogger(logger).propagate = False
