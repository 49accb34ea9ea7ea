"""The queue benchmark itself: its figures exist, its server counts are right, its proxy delays."""

from __future__ import annotations

import time

import pytest
import redis

from benchmarks.queue import rounds
from benchmarks.queue.contest import Contest, Effort, far_away, merged, ratios, summary
from benchmarks.queue.rounds import Case
from benchmarks.queue.server import Meter

TINY = Effort(jobs=200, rounds=1, matrix_rounds=0, round_trips=5, added_ms=1.0, registered=(10, 20))


@pytest.fixture
def meter(redis_url: str):
    meter = Meter(redis_url)
    yield meter
    meter.redis.flushall()
    meter.close()


@pytest.mark.long
def test_figures_of_ours(redis_url: str) -> None:
    """A run without peers brings every figure of ours under its documented name."""
    figures = Contest(redis_url, TINY, [], lambda _text: None).run()
    ours = figures["ours"]
    assert {} == figures["peers"]
    assert min(ours["drained_jobs_s"], ours["enqueued_jobs_s"], ours["not_awaited"]["drained_jobs_s"]) > 0
    assert 0 < ours["round_trip"]["p50_ms"] <= ours["round_trip"]["p99_ms"]
    assert ours["far"]["round_trip"]["p50_ms"] > TINY.added_ms
    assert ours["claim"]["ratio"] > 0


def test_two_workers_drain_many_adapters(redis_url: str, meter: Meter) -> None:
    """Every job of a drain with several workers and adapters is computed once and awaited."""
    figures = rounds.drain(Case(workers=2, adapters=50, claim_size=8), redis_url, 200, meter)
    assert figures["drained_jobs_s"] > 0
    assert 0.01 < figures["scripts_job"] < 3


def test_meter_counts_what_was_done(meter: Meter) -> None:
    """Commands and bytes between start and read are those of the work."""
    meter.start()
    for _ in range(50):
        meter.redis.set("key", "x" * 1000)
    work = meter.read()
    assert 50 <= work.commands <= 60
    assert 50_000 <= work.bytes_in <= 60_000


def test_summary_is_median_and_extremes() -> None:
    """Three rounds give their middle figure and the least and greatest beside it."""
    assert {"x": 2.0, "spread": {"x": [1.0, 9.0]}} == summary([{"x": 9.0}, {"x": 1.0}, {"x": 2.0}])


def test_parts_of_a_run_are_put_together() -> None:
    """What a later part brings joins what the file has; ratios follow once ours and a peer were measured."""
    before = {"ours": {"drained_jobs_s": 8.0, "not_awaited": {"drained_jobs_s": 12.0}}, "peers": {"arq": {}}}
    after = merged(before, {"ours": {"claim": 1}, "peers": {"arq": {"drained_jobs_s": 2.0}}})
    assert {"drained_jobs_s": 8.0, "not_awaited": {"drained_jobs_s": 12.0}, "claim": 1} == after["ours"]
    assert {"ratio_to_best_peer": 4.0, "ratio_not_awaited": 6.0} == ratios(after)
    assert {} == ratios(before)


def test_proxy_delays_requests(redis_url: str) -> None:
    """What a client sends arrives later by the delay, in order; the reply comes back."""
    with far_away(redis_url, 50.0) as url, redis.Redis.from_url(url) as client:
        client.ping()
        began = time.monotonic()
        assert [True, b"2"] == client.pipeline(transaction=False).set("key", 2).get("key").execute()
        assert time.monotonic() - began >= 0.05
