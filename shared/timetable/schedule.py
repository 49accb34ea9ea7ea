"""Schedule: one entry of a pool's timetable: what to ask of which adapter, and when, once or again and again.

Knows cron expressions (cronsim: Debian's rules, also when clocks are put forward or back), time zones, and which run is
due. Knows no Redis. Times are milliseconds of the Redis server's clock.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, tzinfo
from typing import Annotated, Any, Self
from zoneinfo import ZoneInfo

from cronsim import CronSim, CronSimError
from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError, model_validator

from lorapool.shared.errors import InvalidRequest, UnsupportedVersion
from lorapool.shared.job import NAME_PATTERN, Job, JobState, Message, Name, Priority, SamplingParams
from lorapool.shared.response_format import ResponseFormat
from lorapool.shared.wire import explain_validation

VERSION = 2  # of the stored entry; what only adds fields that may be ignored keeps it
PLAIN = 1  # of an entry whose jobs a reader of version 1 makes rightly
DEFAULT_MAX_LATE_MS = 3_600_000
MOST_LATE_MS = 12 * 3_600_000  # less than a result is kept: a repeated enqueue must still find the first one's job
MOST_MS = 32_503_680_000_000  # the year 3000: beyond, calendars and zones give out
MAX_COUNTED = 10_000  # missed runs, at a time
EXAMPLE = "five fields, minute hour day month weekday, such as '0 8 * * *'"

Moment = Annotated[int, Field(ge=0, le=MOST_MS)]
EntryName = Annotated[str, StringConstraints(pattern=rf"^{NAME_PATTERN}$", max_length=100)]
_ZONE = re.compile(r"[A-Za-z0-9+_-]+(/[A-Za-z0-9+_-]+){0,2}")


@dataclass(frozen=True, slots=True)
class Due:
    """``run_ms``: the run to make now, if any. ``missed``: runs whose time has passed and that are not made."""

    run_ms: int | None
    missed: int
    next_ms: int | None  # the first run after now; None when there is none any more


class Schedule(BaseModel):
    """One entry. Either ``cron`` or ``at_ms`` says when; ``adapter`` is looked up anew at each run.

    The last fields move: they are written by whoever makes the runs.
    """

    model_config = ConfigDict(frozen=True, extra="ignore", allow_inf_nan=False)

    v: int = PLAIN
    name: EntryName
    cron: Annotated[str, StringConstraints(max_length=200)] = ""
    at_ms: Moment | None = None
    tz: str = "UTC"
    max_late_ms: Annotated[int, Field(ge=1_000, le=MOST_LATE_MS)] = DEFAULT_MAX_LATE_MS
    adapter: str | None = None  # None is the base model
    agent: Name = "anonymous"
    prompt: str | None = None
    messages: tuple[Message, ...] | None = None
    response_format: ResponseFormat | None = None
    params: SamplingParams = SamplingParams()
    priority: Priority = Priority.NORMAL
    deadline_ms: int | None = None  # after the run's submission
    created_ms: int = 0
    next_ms: Moment | None = None
    runs: int = 0
    missed: int = 0
    last_due_ms: int | None = None
    last_job: str = ""  # full id
    last_error: str = ""
    last_state: JobState | None = None  # of last_job, as far as its record is kept; never stored

    @model_validator(mode="after")
    def _one_time(self) -> Self:
        if bool(self.cron) == (self.at_ms is not None):
            raise ValueError("exactly one of cron and at must be given")
        return self

    @classmethod
    def parse(cls, **fields: Any) -> Schedule:
        """Validate; raises InvalidRequest with one line that names every bad field."""
        try:
            return cls.model_validate(fields)
        except ValidationError as error:
            raise InvalidRequest(explain_validation(error)) from None

    def job(self, run_ms: int, ref: str) -> Job:
        """The job of the run that was due at ``run_ms``: its id says entry and time, so that it exists once."""
        if self.v > VERSION:
            raise UnsupportedVersion(
                f"schedule {self.name} has schema version {self.v}, this release reads up to {VERSION}; upgrade it"
            )
        stamp = datetime.fromtimestamp(run_ms / 1000, UTC).strftime("%Y%m%dT%H%M%SZ")
        return Job.parse(
            id=f"at-{stamp}-{self.name}",
            ref=ref,
            agent=self.agent,
            prompt=self.prompt,
            messages=self.messages,
            response_format=self.response_format,
            params=self.params,
            priority=self.priority,
            deadline_ms=self.deadline_ms,
        )

    def first_ms(self, now_ms: int) -> int:
        """When the first run after now is. Raises InvalidRequest if there will be none."""
        if self.at_ms is not None:
            if self.at_ms <= now_ms:
                raise InvalidRequest(f"at = {self.shown(self.at_ms)}: that has passed; expected a time to come")
            return self.at_ms
        first = next(self._times(now_ms), None)
        if first is None:
            raise InvalidRequest(f"cron = {self.cron!r}: that never comes")
        return first

    def due(self, now_ms: int) -> Due:
        """What is due: the latest run whose time has come, unless it is too late for that; earlier ones are
        missed, also after a long standstill. Raises InvalidRequest where the entry cannot be understood."""
        passed, next_ms = self._passed(now_ms)
        if not passed:
            return Due(None, 0, next_ms)
        run_ms = passed[-1] if now_ms - passed[-1] <= self.max_late_ms else None
        return Due(run_ms, len(passed) - (run_ms is not None), next_ms)

    def shown(self, at_ms: int) -> str:
        """A time as this entry's people read it: ``2026-12-01 08:00 Europe/Berlin``."""
        return f"{datetime.fromtimestamp(at_ms / 1000, zone(self.tz)):%Y-%m-%d %H:%M} {self.tz}"

    def _passed(self, now_ms: int) -> tuple[list[int], int | None]:
        """The run times from the one that is next, up to now (the last 10,000 of them), and the first after now."""
        start_ms = self.next_ms
        if start_ms is None or start_ms > now_ms:
            return [], start_ms
        if self.at_ms is not None:
            return [start_ms], None
        passed = [start_ms]
        for count, time_ms in enumerate(self._times(start_ms)):
            if time_ms > now_ms:
                return passed, time_ms
            if count >= MAX_COUNTED:
                return passed + self._recent(passed[-1], now_ms), next(self._times(now_ms), None)
            passed.append(time_ms)
        return passed, None

    def _recent(self, after_ms: int, now_ms: int) -> list[int]:
        """The run times that are not too late."""
        recent = []
        for time_ms in self._times(max(after_ms, now_ms - self.max_late_ms - 1)):
            if time_ms > now_ms:
                break
            recent.append(time_ms)
        return recent

    def _times(self, after_ms: int) -> Iterator[int]:
        """Run times after that, in order. Where clocks go back, cronsim may look back: those are left out."""
        for time in _cron(self.cron, datetime.fromtimestamp(after_ms / 1000, zone(self.tz))):
            if (time_ms := round(time.timestamp() * 1000)) > after_ms:
                yield time_ms


def zone(name: str) -> tzinfo:
    """The time zone of that name. Raises InvalidRequest where it is not known."""
    if name == "UTC":
        return UTC
    try:
        return ZoneInfo(name) if _ZONE.fullmatch(name) else _no_zone(name)
    except (OSError, ValueError, LookupError):
        return _no_zone(name)


def moment_ms(text: str, tz: str) -> int:
    """An ISO time as milliseconds; without an offset it is in ``tz``."""
    try:
        time = datetime.fromisoformat(text)
    except ValueError:
        raise InvalidRequest(f"at = {text!r:.60}: expected an ISO time, such as 2026-12-01T08:00") from None
    return round((time if time.tzinfo else time.replace(tzinfo=zone(tz))).timestamp() * 1000)


def _no_zone(name: str) -> tzinfo:
    raise InvalidRequest(
        f"tz = {name!r:.60}: not a time zone known here; expected one such as Europe/Berlin "
        "(where the system has none: pip install tzdata)"
    ) from None


def _cron(text: str, after: datetime) -> CronSim:
    if len(text.split()) != 5:
        raise InvalidRequest(f"cron = {text!r:.60}: expected {EXAMPLE}")
    try:
        return CronSim(text, after)
    except (CronSimError, ValueError, AssertionError) as error:
        raise InvalidRequest(f"cron = {text!r:.60}: {str(error) or 'not understood'}; expected {EXAMPLE}") from None
