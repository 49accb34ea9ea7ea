"""DueRuns: makes the runs of the pool's timetable that are due: enqueues an ordinary job for each, once.

A run's job id says entry and time, and enqueue knows an id that it has seen: any number of workers, a crash between
enqueue and record, a lost reply all give one job. A run that is refused (queue full, adapter unknown) stays due and is
tried again until it is too late. Knows no clock but the server's.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

import structlog

from lorapool.shared.catalog.catalog import Catalog
from lorapool.shared.errors import AdapterNotReady, JobConflict, LorapoolError, RedisFull, RedisUnreachable
from lorapool.shared.malformed import UNREADABLE
from lorapool.shared.queue.client import ClientQueue
from lorapool.shared.server.keys import partition_of
from lorapool.shared.timetable.schedule import Schedule
from lorapool.shared.timetable.timetable import Timetable

AT_ONCE = 16  # runs made at a time
log = structlog.get_logger()


@dataclass
class RunCounts:
    """What one look at the timetable came to."""

    runs: int = 0
    missed: int = 0
    refused: int = 0


class DueRuns:
    """``queue_of`` gives the queue of a partition."""

    def __init__(self, timetable: Timetable, catalog: Catalog, queue_of: Callable[[int], ClientQueue]) -> None:
        self._timetable, self._catalog, self._queue_of = timetable, catalog, queue_of

    async def make(self) -> RunCounts:
        """Everything that is due now."""
        counts = RunCounts()
        now_ms, entries, damaged = await self._timetable.due()
        for name, error in damaged.items():
            counts.refused += 1
            log.warning("schedule not understood", schedule=name, error=str(error))
        for start in range(0, len(entries), AT_ONCE):
            part = entries[start : start + AT_ONCE]
            ends = await asyncio.gather(*(self._try(entry, now_ms, counts) for entry in part), return_exceptions=True)
            for failure in ends:
                if failure is not None:
                    raise failure
        return counts

    async def _try(self, entry: Schedule, now_ms: int, counts: RunCounts) -> None:
        try:
            await self._make(entry, now_ms, counts)
        except (RedisUnreachable, RedisFull):
            raise
        except (LorapoolError, *UNREADABLE, OSError) as error:  # OSError: a time beyond what the system can tell
            counts.refused += 1
            log.warning("scheduled run refused", schedule=entry.name, error=str(error))
            await self._timetable.refused(entry, f"{type(error).__name__}: {error}")

    async def _make(self, entry: Schedule, now_ms: int, counts: RunCounts) -> None:
        due = entry.due(now_ms)
        if due.missed:
            log.warning("scheduled runs missed", schedule=entry.name, runs=due.missed)
        if due.run_ms is None:
            if await self._timetable.passed_over(entry, due.next_ms, missed=due.missed):
                counts.missed += due.missed
            return
        job_id = await self._enqueue(entry, due.run_ms)
        if await self._timetable.ran(entry, due.next_ms, run_ms=due.run_ms, job_id=job_id, missed=due.missed):
            counts.runs, counts.missed = counts.runs + 1, counts.missed + due.missed
            log.info("scheduled", schedule=entry.name, job=job_id, due=entry.shown(due.run_ms))

    async def _enqueue(self, entry: Schedule, run_ms: int) -> str:
        """The full id of the run's job, new or there already."""
        record = await self._catalog.resolve(entry.adapter)
        if record.status != "ready":
            raise AdapterNotReady(f"adapter {record.ref} is {record.status}{record.reason and f': {record.reason}'}")
        job = entry.job(run_ms, record.ref)
        config = await self._catalog.config()
        queue = self._queue_of(partition_of(record.ref, job.id, config.partitions if config else 1))
        try:
            return (await queue.enqueue(job)).job_id
        except JobConflict:  # made before, when the name meant another version
            return queue.full_id(job.id)
