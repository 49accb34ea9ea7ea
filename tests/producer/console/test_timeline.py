"""Timeline: a job's stamps as stretches."""

from __future__ import annotations

from lorapool.producer.console.timeline import WIDTH, timeline

NOW = 10_000


def told(**stamps: int) -> list[tuple[str, float]]:
    record = {f"{name}_ms": str(value) for name, value in stamps.items()}
    return [(part.kind, part.took_ms) for part in timeline(record, NOW)]


def test_a_whole_job():
    """Delayed, waiting, loading, reading, writing, end to end."""
    parts = told(submitted=1000, due=2000, started=4000, load=500, first_token=5000, finished=9000)
    assert [("delay", 1000), ("wait", 2000), ("load", 500), ("read", 500), ("write", 4000)] == parts


def test_a_job_that_waits():
    """Up to now."""
    assert [("wait", 9000)] == told(submitted=1000)


def test_a_job_that_runs_and_says_nothing_yet():
    """What it does is not known beyond that."""
    assert [("wait", 1000), ("read", 8000)] == told(submitted=1000, started=2000)


def test_stretches_fill_the_drawing():
    """They stand beside each other, over the whole width, whatever the stamps say."""
    for record in (
        {"submitted_ms": "5", "started_ms": "9", "finished_ms": "30"},
        {"submitted_ms": "9", "due_ms": "12000"},
    ):
        parts = timeline(record, NOW)
        assert 0 == parts[0].left
        assert abs(WIDTH - sum(part.width for part in parts)) < 1


def test_damaged_stamps_are_none():
    """A record that says nonsense has no timeline, or one within the drawing."""
    for stamps in ({"submitted_ms": "soon", "finished_ms": "-3"}, {"submitted_ms": "9e99", "started_ms": "5"}):
        assert all(0 <= part.left <= WIDTH for part in timeline(stamps, NOW))
