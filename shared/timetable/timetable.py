"""Timetable: a pool's schedule entries, as plain keys: a hash an entry, and a set of the names by next run.

Knows how entries are stored, and that a run is recorded once whoever made it. Knows neither how a job is enqueued nor
what cron means. All methods raise RedisUnreachable, RedisAuthFailed or RedisFull besides what they name.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from pydantic import ValidationError

from lorapool.shared.connection import PoolConnection
from lorapool.shared.errors import InvalidRequest, ScheduleConflict, UnknownSchedule
from lorapool.shared.job import check_name
from lorapool.shared.malformed import UNREADABLE, text_map
from lorapool.shared.scripts import records
from lorapool.shared.server.server import Arg
from lorapool.shared.timetable.schedule import Schedule
from lorapool.shared.wire import explain_validation

Entries = list[Schedule]
MAX_DUE = 1000  # entries looked at in one call
_MOVING = {"created_ms", "next_ms", "runs", "missed", "last_due_ms", "last_job", "last_error", "last_state"}
_PARSED = frozenset({"messages", "params"})  # stored as JSON


class Timetable:
    """The schedule of one pool."""

    def __init__(self, connection: PoolConnection) -> None:
        self._server, self._keys, self._scripts = connection.server, connection.keys, connection.scripts

    async def now_ms(self) -> int:
        """The server's clock."""
        now, *_ = await self._scripts.run("schedule_due", 0)
        return int(now)

    async def add(self, entry: Schedule, next_ms: int) -> Schedule:
        """Store it; the same again is the same entry. Raises ScheduleConflict where that name says something else."""
        args = [arg for pair in _fields(entry).items() for arg in pair]
        if await self._scripts.run("schedule_add", *records.ScheduleAdd(name=entry.name, next_ms=next_ms), *args):
            return await self.get(entry.name)
        there = await self.get(entry.name)
        if there.model_dump(exclude=_MOVING) != entry.model_dump(exclude=_MOVING):
            raise ScheduleConflict(
                f"schedule {entry.name} exists and says something else; remove it first (lorapool schedule rm "
                f"{entry.name}), or use another name"
            )
        return there

    async def get(self, name: str) -> Schedule:
        """Raises UnknownSchedule."""
        fields = await self._server.command("HGETALL", self._keys.schedule(check_name("schedule", name)))
        if not fields:
            raise UnknownSchedule(f"no schedule {name!r} in pool {self._keys.pool!r}; see `lorapool schedule ls`")
        return _entry(name, fields)

    async def list(self) -> Entries:
        """Every entry, the next run first; those that are over last. Damaged ones are left out."""
        names = await self._server.command("ZRANGE", self._keys.schedules, 0, -1)
        return [entry for entry in (await self._read(names)).values() if isinstance(entry, Schedule)]

    async def due(self) -> tuple[int, Entries, dict[str, InvalidRequest]]:
        """Now, the entries whose next run's time has come (at most 1,000), and what is wrong with damaged ones."""
        now, *names = await self._scripts.run("schedule_due", MAX_DUE)
        read = await self._read(names)
        entries = [entry for entry in read.values() if isinstance(entry, Schedule)]
        return int(now), entries, {name: error for name, error in read.items() if isinstance(error, InvalidRequest)}

    async def remove(self, name: str) -> None:
        """Make no more runs of it; jobs that it has made stay. Raises UnknownSchedule."""
        if not await self._scripts.run("schedule_remove", check_name("schedule", name)):
            raise UnknownSchedule(f"no schedule {name!r} in pool {self._keys.pool!r}; see `lorapool schedule ls`")

    async def ran(self, entry: Schedule, next_ms: int | None, *, run_ms: int, job_id: str, missed: int = 0) -> bool:
        """Record a run, and when the next one is. False: another has recorded it, or the entry is gone."""
        events: dict[str, Arg] = {"last_due_ms": run_ms, "last_job": job_id, "last_error": ""}
        return await self._move(entry, next_ms, missed, events, runs=1)

    async def passed_over(self, entry: Schedule, next_ms: int | None, *, missed: int) -> bool:
        """Record that runs were missed, and when the next one is."""
        return await self._move(entry, next_ms, missed, {}, runs=0)

    async def refused(self, entry: Schedule, error: str) -> bool:
        """Record why a run could not be made; it stays due."""
        return await self._move(entry, entry.next_ms, 0, {"last_error": error[:500]}, runs=0)

    async def _move(
        self, entry: Schedule, next_ms: int | None, missed: int, events: dict[str, Arg], *, runs: int
    ) -> bool:
        expected, onward = ("" if value is None else value for value in (entry.next_ms, next_ms))
        args = [arg for pair in events.items() for arg in pair]
        move = records.ScheduleMove(name=entry.name, expected_ms=expected, next_ms=onward, missed=missed, runs=runs)
        return bool(await self._scripts.run("schedule_move", *move, *args))

    async def _read(self, names: Sequence[bytes]) -> dict[str, Schedule | InvalidRequest]:
        """The entries by name; a name whose entry has expired is forgotten."""
        texts = [name.decode(errors="replace") for name in names]
        read = await self._server.pipeline([("HGETALL", self._keys.schedule(name)) for name in texts])
        if gone := [name for name, fields in zip(names, read, strict=True) if not fields]:
            await self._server.command("ZREM", self._keys.schedules, *gone)
        return {name: _entry_or_error(name, fields) for name, fields in zip(texts, read, strict=True) if fields}


def _fields(entry: Schedule) -> dict[str, str]:
    """What an entry's hash holds at first; numbers and names as they are, the rest as JSON."""
    fields = {name: str(value) for name, value in entry.model_dump(mode="json").items() if value is not None}
    fields["params"] = json.dumps(entry.params.model_dump(mode="json", exclude_defaults=True), ensure_ascii=False)
    if entry.messages is not None:
        fields["messages"] = json.dumps([m.model_dump() for m in entry.messages], ensure_ascii=False)
    return {name: value for name, value in fields.items() if name not in _MOVING}


def _entry(name: str, reply: Any) -> Schedule:
    """An entry as stored, fields of newer releases ignored. Raises InvalidRequest for a damaged one."""
    try:
        fields: dict[str, Any] = {key: value for key, value in text_map(reply).items() if value or key == "prompt"}
        for key in _PARSED & fields.keys():
            fields[key] = json.loads(fields[key])
        if isinstance(fields.get("params"), dict):
            known = type(Schedule.model_fields["params"].default).model_fields
            fields["params"] = {key: value for key, value in fields["params"].items() if key in known}
        if fields.get("name") != name:
            raise InvalidRequest(f"it lies under the name {name!r:.60} and says that it is {fields.get('name')!r:.60}")
        return Schedule.model_validate(fields)
    except ValidationError as error:
        raise InvalidRequest(f"stored schedule: {explain_validation(error)}") from None
    except UNREADABLE as error:
        raise InvalidRequest(f"stored schedule: {error}") from None


def _entry_or_error(name: str, reply: Any) -> Schedule | InvalidRequest:
    try:
        return _entry(name, reply)
    except InvalidRequest as error:
        return error
