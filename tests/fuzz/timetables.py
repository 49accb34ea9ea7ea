"""Schedules: cron expressions, time zones, moments; what is due, whatever the clock says."""

from __future__ import annotations

from random import Random
from typing import Any

from lorapool.shared.timetable.schedule import MAX_COUNTED, Schedule, moment_ms, zone
from tests.fuzz import mutation
from tests.fuzz.target import Target

NOW_MS = 1_795_000_000_000
CRONS = (
    "0 8 * * *", "*/5 9-17 * * 1-5", "0 0 29 2 *", "30 2 L * *", "0 0 * * 5#2", "@daily", "0 0 31 4 *", "59 23 31 12 7",
    "* * * * *", "0 0 1 1 *", "0 0 30 2 *", "1,2,3 */2 1-31/3 jan mon",
)  # fmt: skip
ZONES = (
    "UTC",
    "Europe/Berlin",
    "America/New_York",
    "Asia/Kolkata",
    "Pacific/Apia",
    "Etc/GMT+12",
    "localtime",
    "posix/UTC",
)
MOMENTS = ("2026-12-01T08:00", "2026-12-01T08:00:00+01:00", "20261201", "0001-01-01T00:00", "9999-12-31T23:59:59-23:59")
ENTRY = {
    "name": "daily", "cron": "0 8 * * *", "at_ms": None, "tz": "UTC", "max_late_ms": 3_600_000, "adapter": "cfo",
    "prompt": "Hi",
    "params": {"max_new_tokens": 4}, "priority": "normal", "deadline_ms": None, "next_ms": NOW_MS - 60_000, "runs": 3,
}  # fmt: skip


def draw_entry(random: Random) -> dict[str, Any]:
    entry = {**ENTRY, "cron": _cron(random), "tz": random.choice(ZONES)}
    entry["next_ms"] = random.choice((None, 0, -1, 1, NOW_MS - 1, NOW_MS + 1, 2**53, -(2**53), 10**18, NOW_MS - 10**10))
    return entry if random.random() < 0.5 else {**entry, **dict(_changed(random))}


def _changed(random: Random) -> Any:
    found = mutation.changed(random, ENTRY)
    return found if isinstance(found, dict) else {"tz": found}


def _cron(random: Random) -> str:
    cron = random.choice(CRONS)
    if random.random() < 0.4:
        return cron
    if random.random() < 0.5:
        return mutation.changed_text(random, cron)
    return " ".join(random.choice(" ".join(CRONS).split(" ")) for _ in range(5))


def check_entry(fields: dict[str, Any]) -> None:
    """Refused by name; or what is due is told, at most one run is made, and its job can be sent."""
    entry = Schedule.parse(**{str(name): value for name, value in fields.items()})
    if entry.at_ms is None or entry.at_ms > NOW_MS:
        entry.first_ms(NOW_MS)
    due = entry.due(NOW_MS)
    assert due.missed <= 2 * MAX_COUNTED + 720
    assert due.next_ms is None or due.next_ms > NOW_MS
    if due.run_ms is not None:
        entry.job(due.run_ms, "cfo@1")
        entry.shown(due.run_ms)


def draw_moment(random: Random) -> tuple[str, str]:
    moment, name = (mutation.changed_text(random, random.choice(some)) for some in (MOMENTS, ZONES))
    return random.choice((moment, random.choice(MOMENTS))), random.choice((name, random.choice(ZONES)))


def check_moment(case: tuple[str, str]) -> None:
    zone(case[1])
    moment_ms(*case)


TARGETS = (Target("schedule", draw_entry, check_entry, limit_s=5.0), Target("moment", draw_moment, check_moment))
