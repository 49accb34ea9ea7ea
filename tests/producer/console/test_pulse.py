"""Pulse: rates between two minutes, and what is written down of one."""

from __future__ import annotations

from lorapool.producer.console import pulse
from lorapool.shared.fleet.history import Minute
from lorapool.shared.queue.onlooker import Glance, SeenJob, WaitingRef

START = 1_800_000_000_000


def minute(number: int, **totals: float) -> Minute:
    return Minute(START + number * 60_000, START + number * 60_000, totals)


def job(waited_ms: int, due_ms: int = 0) -> SeenJob:
    return SeenJob("0.a", "running", "cfo@1", "a", "w1", 1, START, START + waited_ms, due_ms, "normal")


def test_rates_are_between_neighbours():
    """Jobs and tokens a second, errors a minute, the hit rate and the mean wait of what ended in between."""
    before = minute(0, succeeded=100, completion_tokens=1000, slot_hits=10)
    after = minute(
        1,
        succeeded=154,
        failed=6,
        completion_tokens=1600,
        slot_hits=50,
        slot_misses=20,
        queued_ms=600,
        waiting=3,
        running=2,
    )
    [beat] = pulse.beats([before, after])
    assert (1.0, 10.0, 6.0) == (beat.jobs_per_s, beat.tokens_per_s, beat.errors)
    assert (40 / 60, 10.0, 3, 2) == (beat.hit_rate, beat.wait_mean_ms, beat.waiting, beat.running)


def test_a_gap_is_no_minute():
    """Where nobody counted for longer than two minutes, nothing is told."""
    assert [] == pulse.beats([minute(0, succeeded=1), minute(5, succeeded=100)])


def test_totals_that_shrink_tell_nothing():
    """An adapter that is removed takes its counters along: that is no negative rate."""
    [beat] = pulse.beats([minute(0, succeeded=100), minute(1, succeeded=40)])
    assert (0, None) == (beat.jobs_per_s, beat.hit_rate)


def test_what_is_written_down():
    """Counters, gauges, and quantiles of how long running jobs had waited, from when they were due."""
    glance = Glance(START + 9_000, 5, 2, 0, 0, 1, (WaitingRef("cfo@1", 5, START),))
    sample = [job(waited) for waited in range(100, 0, -1)] + [job(5_000, due_ms=START + 4_950)]
    noted = pulse.noted({"succeeded": 7, "stale": 3}, glance, sample, 3)
    assert {"succeeded": 7, "waiting": 5, "workers": 3, "oldest_wait_ms": 9_000}.items() <= noted.items()
    assert (50, 95) == (noted["wait_p50_ms"], noted["wait_p95_ms"])
    assert "stale" not in noted


def test_nothing_runs_nothing_waited():
    """No quantile of no jobs."""
    noted = pulse.noted({}, Glance(START, 0, 0, 0, 0, 0, ()), [], 0)
    assert not {"wait_p50_ms", "wait_p95_ms", "oldest_wait_ms"} & noted.keys()
