"""Maintenance: the chores of a pool at their ticks, by arq; any number of these workers share the work.

A tick is a multiple of a chore's period since 1970 by the server's clock, so that all workers mean the same one,
whatever their hosts' clocks say; arq enqueues it once, and the pool's book gives it to the first who begins. The
protocol does not depend on any of this: while no maintenance worker lives, jobs run, leases are reaped and deadlines
kept; only due entries of the timetable wait.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import signal
import time
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import structlog
from arq import cron
from arq.cron import CronJob
from arq.worker import Worker as ArqWorker

from lorapool.shared.catalog.catalog import Catalog
from lorapool.shared.errors import LorapoolError, PoolMismatch, RedisAuthFailed
from lorapool.shared.queue.broker import Broker
from lorapool.shared.queue.upkeep import Upkeep
from lorapool.shared.server.keys import Keys
from lorapool.shared.server.redis_retry import put_down
from lorapool.shared.server.settings import RedisSettings, connect, translated
from lorapool.shared.timetable.chores import ChoreBook
from lorapool.shared.timetable.timetable import Timetable
from lorapool.worker.adapters.cache_folder import CacheFolder
from lorapool.worker.maintenance.arq_redis import arq_redis, pack, unpack
from lorapool.worker.maintenance.chores import Chores, Facts
from lorapool.worker.maintenance.due_runs import DueJobs

CHORE_TIMEOUT_S = 120
LAST_WORDS_S = 10.0  # for a chore that runs when the worker is told to stop
AGAIN_S = 1.0  # after an outage
log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Periods:
    """Seconds between a chore's ticks."""

    schedule: float = 5
    fsck: float = 60
    dead_letters: float = 900
    dead_workers: float = 60
    cache: float = 600


class TickingArq(ArqWorker):
    """arq's worker, whose cron jobs are due by the server's clock, not by this host's.

    A job is due at every multiple of its period (milliseconds) since 1970, beginning with the first after the start.
    """

    def __init__(self, now_ms: Callable[[], Awaitable[int]], periods_ms: Mapping[str, int], **options: Any) -> None:
        super().__init__(**options)
        self._server_ms, self._periods_ms = now_ms, periods_ms
        self._ticks_ms: dict[str, int] = {}

    async def run_cron(self, n: datetime, delay: float, num_windows: int = 2) -> None:
        """Enqueue what has become due; one that another host has enqueued for the same tick is there already."""
        now_ms = await self._server_ms()
        for name, every_ms in self._periods_ms.items():
            tick_ms = now_ms // every_ms * every_ms
            if self._ticks_ms.setdefault(name, tick_ms) != tick_ms:
                self._ticks_ms[name] = tick_ms
                await self.pool.enqueue_job(name, _job_id=f"{name}:{tick_ms}", _queue_name=self.queue_name)


class Maintenance:
    """One maintenance worker; ``cache`` is this machine's folder of fetched adapters, kept within its budget."""

    def __init__(
        self, settings: RedisSettings, periods: Periods, cache: CacheFolder | None = None, name: str | None = None
    ) -> None:
        self._settings, self._periods, self._cache = settings, periods, cache
        self.name = name or f"m-{secrets.token_hex(4)}"
        self._redis = connect(settings)
        self._catalog = Catalog(self._redis, settings.pool)
        self._book = ChoreBook(self._redis, settings.pool)
        self._brokers: dict[int, Broker] = {}
        self._arq: ArqWorker | None = None
        self._stopping = asyncio.Event()

    async def run(self) -> None:
        """Until ``stop``. Raises RedisAuthFailed, PoolMismatch (another layout); outlives outages."""
        log.info("starting maintenance", worker=self.name, pool=self._settings.pool, redis=self._settings.redacted_url)
        duties = [asyncio.create_task(duty) for duty in (self._supervise(), self._sweep_cache())]
        stopping = asyncio.create_task(self._stopping.wait())
        try:
            await asyncio.wait([stopping, *duties], return_when=asyncio.FIRST_COMPLETED)
            await self._let_finish()
        finally:
            await put_down([stopping, *duties])
            await self._put_away()
            await self._close()
        for duty in duties:
            if not duty.cancelled() and (error := duty.exception()) is not None:
                raise error
        log.info("stopped", worker=self.name)

    def stop(self) -> None:
        """Let a chore that runs finish, and return."""
        self._stopping.set()

    def stop_on_signals(self) -> None:
        """SIGTERM and SIGINT call ``stop``."""
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, self.stop)

    # -- chores at their ticks

    async def _supervise(self) -> None:
        """An arq worker; another one whenever an outage has ended it."""
        while True:
            try:
                self._arq = self._arq_worker(await self._chores())
                log.info("ready", worker=self.name, pool=self._settings.pool)
                await self._arq.async_run()
            except Exception as error:
                ours = error if isinstance(error, LorapoolError) else translated(error, self._redis)
                if ours is None:
                    raise
                if isinstance(ours, RedisAuthFailed | PoolMismatch):
                    raise ours from None
                log.warning("redis did not answer, trying again", error=str(ours), pause_s=AGAIN_S)
            await self._put_away()
            await asyncio.sleep(AGAIN_S)

    def _arq_worker(self, chores: Chores) -> ArqWorker:
        redis = arq_redis(self._settings)
        jobs = self._cron_jobs(chores)
        return TickingArq(
            self._book.now_ms,
            {job.name: max(1, round(1000 * getattr(self._periods, job.name))) for job in jobs},
            cron_jobs=jobs,
            queue_name=redis.default_queue_name,
            redis_pool=redis,
            handle_signals=False,
            job_timeout=CHORE_TIMEOUT_S,
            keep_result=0,
            health_check_interval=30,
            timezone=UTC,
            job_serializer=pack,
            job_deserializer=unpack,
        )

    async def _let_finish(self) -> None:
        """Begin no more chores, and wait for those that run."""
        if self._arq is not None:
            self._arq.allow_pick_jobs = False
            if running := _unfinished(self._arq):
                await asyncio.wait(running, timeout=LAST_WORDS_S)

    async def _put_away(self) -> None:
        """End what is left of an arq worker."""
        arq, self._arq = self._arq, None
        if arq is not None:
            await put_down(_unfinished(arq))
            await asyncio.gather(*arq.tasks.values(), return_exceptions=True)  # told when they happened
            await arq.pool.aclose()

    def _cron_jobs(self, chores: Chores) -> list[CronJob]:
        works: dict[str, Callable[[], Awaitable[Facts]]] = {
            "schedule": chores.schedule,
            "fsck": chores.fsck,
            "dead_letters": chores.dead_letters,
            "dead_workers": chores.dead_workers,
        }
        return [cron(self._at_tick(name, work), name=name) for name, work in works.items()]

    def _at_tick(self, chore: str, work: Callable[[], Awaitable[Facts]]) -> Any:
        """The coroutine that arq calls: the chore, if this tick of it is ours."""

        async def at_tick(ctx: dict[Any, Any]) -> None:
            tick_ms = int(ctx["job_id"].rpartition(":")[2])
            if not await self._book.begin(chore, tick_ms, self.name):
                return
            began = time.monotonic()
            try:
                said = await work()
            except Exception as error:  # noqa: BLE001 - the next tick does it; arq must not repeat this one
                log.warning("chore failed", chore=chore, tick_ms=tick_ms, error=f"{type(error).__name__}: {error}")
                await self._book.end(chore, {})
                return
            await self._book.end(chore, {**said, "took_ms": round(1000 * (time.monotonic() - began))})
            log.debug("chore done", chore=chore, tick_ms=tick_ms, worker=self.name, **said)

        return at_tick

    async def _chores(self) -> Chores:
        await self._catalog.layout.check()
        config = await self._catalog.config()
        upkeeps = [Upkeep(self._redis, Keys(self._settings.pool, p)) for p in range(config.partitions if config else 1)]
        timetable = Timetable(self._redis, self._settings.pool)
        return Chores(self._catalog, self._book, upkeeps, DueJobs(timetable, self._catalog, self._broker))

    def _broker(self, partition: int) -> Broker:
        if partition not in self._brokers:
            self._brokers[partition] = Broker(self._redis, Keys(self._settings.pool, partition))
        return self._brokers[partition]

    async def _close(self) -> None:
        for broker in self._brokers.values():
            await broker.close()
        await self._redis.aclose()

    # -- this machine's own

    async def _sweep_cache(self) -> None:
        """No chore of the pool: a folder is swept by the workers of its machine."""
        while True:
            if self._cache is not None:
                try:
                    swept = await asyncio.to_thread(self._cache.sweep)
                except OSError as error:
                    log.warning("cache not swept", folder=str(self._cache.folder), error=str(error))
                else:
                    tell = log.info if swept.removed else log.debug
                    tell("cache swept", folder=str(self._cache.folder), **vars(swept))
            await asyncio.sleep(self._periods.cache)


def _unfinished(arq: ArqWorker) -> list[asyncio.Task[Any]]:
    return [task for task in arq.tasks.values() if not task.done()]


async def maintain(make: Callable[[], Maintenance]) -> int:
    """Run until SIGTERM; the exit status."""
    _tell_in_our_way("arq")
    maintenance = make()
    maintenance.stop_on_signals()
    with suppress(asyncio.CancelledError):
        await maintenance.run()
    return 0


class _Told(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        log.warning("arq", said=record.getMessage())


def _tell_in_our_way(logger: str) -> None:
    """What arq warns of becomes a line like all others."""
    logging.getLogger(logger).handlers = [_Told(logging.WARNING)]
    logging.getLogger(logger).propagate = False
