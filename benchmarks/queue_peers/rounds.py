"""One round of a peer: enqueue, drain, count what was stored; and its round trips on an idle worker."""

from __future__ import annotations

import time
from typing import Any

from benchmarks.queue.processes import ask, talking
from benchmarks.queue.server import Meter
from benchmarks.queue_peers.venvs import Peer, python_of

CONCURRENCY = 32
LAST_RESULTS_S = 5.0  # from the last handler call until every result must be stored
WORKER_GRACE_S = 0.5  # peers may wait long for SIGTERM, and have nothing left to lose


def drain(peer: Peer, url: str, jobs: int, meter: Meter) -> dict[str, Any]:
    """Enqueued and drained jobs a second, and what the server did for each job drained."""
    python = python_of(peer)
    meter.redis.flushall()
    enqueued = ask(python, peer.module, "enqueue", "enqueued", redis_url=url, count=jobs)
    meter.start()
    options = {"redis_url": url, "count": jobs, "concurrency": CONCURRENCY}
    with talking(python, peer.module, "work", WORKER_GRACE_S, **options) as worker:
        drained = worker.hear("drained")
        work = meter.read()
        _expect_stored(peer, url, jobs)
    return {
        "enqueued_jobs_s": jobs / enqueued["seconds"],
        "drained_jobs_s": jobs / drained["seconds"],
        **work.per_job(jobs),
    }


def round_trips(peer: Peer, url: str, count: int, meter: Meter) -> list[float]:
    """Milliseconds from enqueue to result, one job after another."""
    meter.redis.flushall()
    python = python_of(peer)
    with talking(python, peer.module, "work", WORKER_GRACE_S, redis_url=url, concurrency=CONCURRENCY, count=0):
        time.sleep(1.0)  # until it is idle
        heard = ask(python, peer.module, "round-trips", "milliseconds", redis_url=url, count=count)
    milliseconds: list[float] = heard["milliseconds"]
    return milliseconds


def _expect_stored(peer: Peer, url: str, jobs: int) -> None:
    give_up_at = time.monotonic() + LAST_RESULTS_S
    while True:
        stored = ask(python_of(peer), peer.module, "stored", "stored", redis_url=url)["stored"]
        if stored == jobs:
            return
        assert time.monotonic() < give_up_at, f"{peer.name} keeps {stored} results of {jobs} jobs"
