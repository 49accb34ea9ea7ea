"""When a schedule entry's runs are, and which of them to make."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from lorapool.shared.errors import InvalidRequest, UnsupportedVersion
from lorapool.shared.job import Job
from lorapool.shared.response_format import ResponseFormat
from lorapool.shared.timetable.schedule import MAX_COUNTED, PLAIN, VERSION, Due, Schedule, moment_ms, zone

HOUR_MS = 3_600_000
DAY_MS = 24 * HOUR_MS
EIGHT = moment_ms("2026-12-01T08:00", "UTC")


def entry(**fields: Any) -> Schedule:
    return Schedule.parse(**{"name": "morning", "cron": "0 8 * * *", "prompt": "hi", "next_ms": EIGHT, **fields})


def once(**fields: Any) -> Schedule:
    return entry(cron="", at_ms=EIGHT, **fields)


def test_the_first_run_is_after_now():
    """Also when now is a run's very minute."""
    assert EIGHT == entry().first_ms(EIGHT - 1)
    assert EIGHT + DAY_MS == entry().first_ms(EIGHT)
    assert EIGHT == once().first_ms(EIGHT - DAY_MS)


@pytest.mark.parametrize("now_ms", [EIGHT - 1, EIGHT - DAY_MS])
def test_nothing_is_due_before_its_time(now_ms: int):
    assert Due(None, 0, EIGHT) == entry().due(now_ms)


@pytest.mark.parametrize("late_ms", [0, 1, HOUR_MS])
def test_a_run_is_due_until_it_is_too_late(late_ms: int):
    assert Due(EIGHT, 0, EIGHT + DAY_MS) == entry().due(EIGHT + late_ms)
    assert Due(EIGHT, 0, None) == once().due(EIGHT + late_ms)


def test_a_run_that_is_too_late_is_missed():
    assert Due(None, 1, EIGHT + DAY_MS) == entry().due(EIGHT + HOUR_MS + 1)
    assert Due(None, 1, None) == once().due(EIGHT + HOUR_MS + 1)
    assert Due(EIGHT, 0, None) == once(max_late_ms=2 * HOUR_MS).due(EIGHT + HOUR_MS + 1)


def test_of_several_missed_runs_only_the_latest_is_made():
    """After a standstill there is no flood: one run that is not too late, the rest counted."""
    assert Due(EIGHT + 3 * DAY_MS, 3, EIGHT + 4 * DAY_MS) == entry().due(EIGHT + 3 * DAY_MS + 5)


@pytest.mark.parametrize("minutes", [MAX_COUNTED - 1, MAX_COUNTED + 5, 10 * MAX_COUNTED])
def test_a_standstill_of_months_is_got_over(minutes: int):
    """The run to make and the next are right however many were missed; the count is right up to 10,000."""
    now_ms = EIGHT + minutes * 60_000 + 100
    due = entry(cron="* * * * *").due(now_ms)
    assert (now_ms - 100, now_ms - 100 + 60_000) == (due.run_ms, due.next_ms)
    assert min(minutes, MAX_COUNTED) <= due.missed <= minutes


def test_a_time_zone_is_heeded():
    """Eight in Berlin is seven in winter and six in summer, by UTC."""
    berlin = entry(tz="Europe/Berlin")
    assert moment_ms("2026-12-01T07:00", "UTC") == berlin.first_ms(moment_ms("2026-12-01", "UTC"))
    assert moment_ms("2026-07-01T06:00", "UTC") == berlin.first_ms(moment_ms("2026-07-01", "UTC"))


def test_a_run_in_the_hour_that_comes_twice_is_made_once():
    """Clocks go back on 2026-10-25 at three in Berlin: half past two is run once, whoever looks when."""
    berlin = ZoneInfo("Europe/Berlin")
    first = round(datetime(2026, 10, 25, 2, 30, tzinfo=berlin).timestamp() * 1000)
    item = entry(cron="30 2 * * *", tz="Europe/Berlin", next_ms=first)
    for late_ms in range(0, HOUR_MS, 600_000):  # into the hour's second coming
        due = item.due(first + late_ms)
        assert (first, 0) == (due.run_ms, due.missed)
        assert moment_ms("2026-10-26T02:30", "Europe/Berlin") == due.next_ms == item.first_ms(first + late_ms)


def test_a_run_in_the_hour_that_is_left_out_is_made_after_it():
    """Clocks go forward on 2026-03-29 at two in Berlin: half past two is made at three."""
    item = entry(cron="30 2 * * *", tz="Europe/Berlin")
    assert moment_ms("2026-03-29T03:00", "Europe/Berlin") == item.first_ms(moment_ms("2026-03-28T12:00", "UTC"))


@pytest.mark.parametrize(
    "cron", ["", "8", "0 8 * *", "61 * * * *", "0 8 * * * *", "a b c d e", "0 0 31 2 *", "* " * 99]
)
def test_what_is_no_cron_expression_is_refused(cron: str):
    with pytest.raises(InvalidRequest):
        entry(cron=cron).first_ms(EIGHT)


@pytest.mark.parametrize("name", ["Mars/Olympus", "../../etc/passwd", "", "/etc/localtime", "Europe\0", "Europe"])
def test_what_is_no_time_zone_is_refused(name: str):
    """Names from outside do not become paths."""
    with pytest.raises(InvalidRequest, match="not a time zone"):
        zone(name)


def test_times_are_read_in_the_zone_unless_they_say_their_own():
    assert round(datetime(2026, 12, 1, 8, tzinfo=UTC).timestamp() * 1000) == EIGHT
    assert EIGHT == moment_ms("2026-12-01T09:00", "Europe/Berlin") == moment_ms("2026-12-01T08:00Z", "Asia/Tokyo")
    with pytest.raises(InvalidRequest, match="expected an ISO time"):
        moment_ms("tomorrow", "UTC")


def test_a_time_that_has_passed_is_refused():
    with pytest.raises(InvalidRequest, match="has passed"):
        once().first_ms(EIGHT)


@pytest.mark.parametrize(
    "fields", [{"cron": ""}, {"at_ms": EIGHT}, {"name": "../x"}, {"name": "x" * 101}, {"max_late_ms": 1}]
)
def test_what_is_no_entry_is_refused(fields: dict[str, Any]):
    with pytest.raises(InvalidRequest):
        entry(**fields)


def test_a_runs_job_is_named_by_entry_and_time():
    """So that whoever makes the run makes the same job; and a name that begins with a number stays a job's bare id."""
    job = entry(name="8.x", agent="board", params={"top_k": 3}, deadline_ms=9).job(EIGHT, "cfo@1")
    expected = Job.parse(
        id="at-20261201T080000Z-8.x", ref="cfo@1", agent="board", prompt="hi", params={"top_k": 3}, deadline_ms=9
    )
    assert expected == job


def test_a_newer_entry_is_not_run():
    """An entry of a newer schema waits for a worker that knows it."""
    with pytest.raises(UnsupportedVersion, match="schema version 3"):
        entry(v=3).job(EIGHT, "cfo@1")


def test_a_runs_answer_has_the_entrys_form():
    """A reader that does not know forms refuses such an entry, and makes the runs of all others."""
    form = ResponseFormat(kind="regex", value="[0-9]+")
    assert form == entry(response_format=form, v=VERSION).job(EIGHT, "_base").response_format
    assert (PLAIN, None) == (entry().v, entry().job(EIGHT, "_base").response_format)
