"""Schedules: jobs that recur or are to run once at a given time: ``client.schedules``.

What is added is checked here as a submitted request is, with the parser that the maintenance workers use. Those make
the runs: without a ``lorapool-worker maintenance`` the entries wait. Builds no Redis command.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

from lorapool.producer.client.adapters import Adapters
from lorapool.producer.client.request import Request, Seconds
from lorapool.shared import codec
from lorapool.shared.errors import InvalidRequest
from lorapool.shared.job import BASE_REF, JobState
from lorapool.shared.malformed import number
from lorapool.shared.queue.client import ClientQueue
from lorapool.shared.response_format import ResponseFormat
from lorapool.shared.timetable.chores import ChoreBook
from lorapool.shared.timetable.schedule import DEFAULT_MAX_LATE_MS, PLAIN, VERSION, Schedule, moment_ms, zone
from lorapool.shared.timetable.timetable import Timetable


class Schedules:
    """The pool's timetable; ``agent`` is who jobs are counted under where nobody is named."""

    def __init__(
        self, timetable: Timetable, book: ChoreBook, queue: ClientQueue, adapters: Adapters, agent: str
    ) -> None:
        self._timetable, self._book, self._queue = timetable, book, queue
        self._adapters, self._agent = adapters, agent

    async def add(
        self,
        adapter: str | None,
        prompt: str | None = None,
        *,
        cron: str | None = None,
        at: str | datetime | None = None,
        tz: str = "UTC",
        name: str | None = None,
        max_late: Seconds = DEFAULT_MAX_LATE_MS / 1000,
        messages: Sequence[Mapping[str, str]] | None = None,
        agent: str | None = None,
        priority: str = "normal",
        deadline: Seconds | None = None,
        response_format: ResponseFormat | Mapping[str, Any] | None = None,
        **params: Any,
    ) -> Schedule:
        """Run a request whenever ``cron`` says, such as ``"0 8 * * *"``, or once at the time ``at``, in zone ``tz``.

        The request is as for ``submit``; the adapter's name is looked up at each run, so that an alias may move. A run
        that would be more than ``max_late`` seconds late (nobody there, or refused all that time) is left out; of
        several missed ones only the latest is made. Adding the same under the same ``name`` again is harmless. Raises
        InvalidRequest, UnknownAdapter, ScheduleConflict (that name says something else).
        """
        if isinstance(at, datetime):
            at = at.isoformat()
        zone(tz)
        request = Request(
            adapter,
            prompt,
            messages,
            agent,
            priority=priority,
            deadline=deadline,
            response_format=response_format,
            params=params,
        )
        job = request.job(ref=BASE_REF, agent=self._agent, client="schedule")
        codec.encode_job(job)  # for its limit on the size
        await self._adapters.ref(adapter)
        entry = Schedule.parse(
            v=PLAIN if job.response_format is None else VERSION,
            name=_made_up(adapter) if name is None else name,
            cron=" ".join((cron or "").split()),
            at_ms=None if at is None else moment_ms(at, tz),
            tz=tz,
            max_late_ms=_milliseconds(max_late),
            adapter=adapter,
            **{field: getattr(job, field) for field in _OF_JOB},
        )
        return await self._timetable.add(entry, entry.first_ms(await self._timetable.now_ms()))

    async def list(self) -> list[Schedule]:
        """Every entry, the next run first, with its last run's job and that job's state."""
        entries = await self._timetable.list()
        states = await self._queue.states([entry.last_job or "-" for entry in entries])
        known = (state if isinstance(state, JobState) else None for state in states)
        return [entry.model_copy(update={"last_state": state}) for entry, state in zip(entries, known, strict=True)]

    async def watched(self) -> bool:
        """Whether a maintenance worker has looked at the timetable within the last minute."""
        looked_ms = int(number(await self._book.recall("schedule.began_ms")))
        return await self._timetable.now_ms() - looked_ms < 60_000

    async def remove(self, name: str) -> None:
        """Make no more runs of that entry; jobs that it has made go on. Raises UnknownSchedule."""
        await self._timetable.remove(name)


_OF_JOB = ("agent", "prompt", "messages", "response_format", "params", "priority", "deadline_ms")


def _made_up(adapter: str | None) -> str:
    return f"{re.sub(r'[^A-Za-z0-9.-]', '-', adapter or 'base')[:80].lstrip('.-') or 'job'}-{secrets.token_hex(3)}"


def _milliseconds(max_late: Seconds) -> int:
    seconds = max_late.total_seconds() if isinstance(max_late, timedelta) else max_late
    if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not 1 <= seconds <= 43_200:
        raise InvalidRequest(f"max_late = {max_late!r}: expected seconds, from 1 to 43,200 (12 hours)")
    return round(seconds * 1000)
