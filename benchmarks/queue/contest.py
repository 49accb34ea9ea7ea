"""The whole comparison: what is measured, how often, in which order; the figures as one tree for JSON.

Ours and the peers take turns within a round, so that a noisy machine disturbs all alike.
"""

from __future__ import annotations

import sys
from collections import defaultdict
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from statistics import median
from typing import Any
from urllib.parse import urlsplit

from benchmarks.queue import rounds as ours
from benchmarks.queue.processes import talking
from benchmarks.queue.rounds import Case
from benchmarks.queue.server import Meter
from benchmarks.queue_peers import rounds as peers
from benchmarks.queue_peers.venvs import PEERS, versions

Figures = dict[str, float]
Round = Callable[[], Figures]

PARTS = ("drains", "trips", "matrix", "far", "claims")
HEADLINE = Case()
MATRIX = [Case(workers, adapters, size) for workers in (1, 4) for adapters in (1, 100, 1000) for size in (1, 32)]


@dataclass(frozen=True)
class Effort:
    """How much is run. Jobs are those of a drain; slow peers get a fifth."""

    jobs: int = 5_000
    rounds: int = 5
    matrix_rounds: int = 3
    round_trips: int = 200
    added_ms: float = 1.0
    registered: Sequence[int] = (10, 10_000)


QUICK = Effort(jobs=1_000, rounds=1, matrix_rounds=0, round_trips=30, registered=(10, 200))


class Contest:
    """Runs on the server at ``url``, which it empties again and again."""

    def __init__(self, url: str, effort: Effort, peer_names: Sequence[str], tell: Callable[[str], None]) -> None:
        self._url, self._effort, self._tell = url, effort, tell
        self._peers = [PEERS[name] for name in peer_names]
        self._meter = Meter(url)

    def run(self, parts: Collection[str] = PARTS) -> dict[str, Any]:
        """The tree: ``ours`` and ``peers`` each with ``drained_jobs_s``, medians first, least and greatest beside."""
        measure = {
            "drains": self._drains,
            "trips": self._trips,
            "matrix": self._matrix,
            "far": self._far,
            "claims": self._claims,
        }
        results: dict[str, Any] = {"ours": {}, "peers": {peer.name: {} for peer in self._peers}}
        for part in PARTS:
            if part in parts:
                results = merged(results, measure[part]())
        self._meter.close()
        return results

    def _drains(self) -> dict[str, Any]:
        jobs = self._effort.jobs
        unawaited = Case(awaited=False)
        contestants: dict[str, Round] = {
            "ours": partial(ours.drain, HEADLINE, self._url, jobs, self._meter),
            "ours, not awaited": partial(ours.drain, unawaited, self._url, jobs, self._meter),
        }
        for peer in self._peers:
            few = jobs // 5 if peer.slow else jobs
            contestants[peer.name] = partial(peers.drain, peer, self._url, few, self._meter)
        by_contestant = self._in_turns(contestants, self._effort.rounds)
        mine = {**by_contestant.pop("ours"), "not_awaited": by_contestant.pop("ours, not awaited")}
        versioned = {peer.name: {**by_contestant[peer.name], "versions": versions(peer)} for peer in self._peers}
        return {"ours": mine, "peers": versioned}

    def _trips(self) -> dict[str, Any]:
        """From enqueue to result, one job after another."""
        count = self._effort.round_trips
        mine = self._round_trip(partial(ours.round_trips, self._url, count, self._meter))
        theirs = {}
        for peer in self._peers:
            few = max(count // 10 if peer.slow or peer.polls else count, 5)
            trips = self._round_trip(partial(peers.round_trips, peer, self._url, few, self._meter))
            theirs[peer.name] = {"round_trip": trips}
        return {"ours": {"round_trip": mine}, "peers": theirs}

    def _matrix(self) -> dict[str, Any]:
        """Ours by workers, adapters and claim size."""
        jobs, cases = self._effort.jobs, {str(case): case for case in MATRIX if self._effort.matrix_rounds}
        matrix = {name: partial(ours.drain, case, self._url, jobs, self._meter) for name, case in cases.items()}
        return {"ours": {"matrix": self._in_turns(matrix, self._effort.matrix_rounds)}}

    def _round_trip(self, run: Callable[[], list[float]]) -> dict[str, float]:
        self._tell("round trips")
        values = sorted(run())
        return {"p50_ms": median(values), "p99_ms": values[int(0.99 * (len(values) - 1))], "count": len(values)}

    def _far(self) -> dict[str, Any]:
        """The headline case with a longer way to the server."""
        added_ms = self._effort.added_ms
        with far_away(self._url, added_ms) as far_url:
            drained = self._in_turns(
                {f"{added_ms:g} ms away": partial(ours.drain, HEADLINE, far_url, self._effort.jobs, self._meter)},
                max(1, self._effort.matrix_rounds),
            )
            trips = self._round_trip(partial(ours.round_trips, far_url, self._effort.round_trips, self._meter))
        [figures] = drained.values()
        return {"ours": {"far": {"added_ms": added_ms, **figures, "round_trip": trips}}}

    def _claims(self) -> dict[str, Any]:
        """Server time of a claim of 8 jobs from 8 adapters: ten of few or of many with work, and all of many."""
        few, many = self._effort.registered
        looks = {f"{n} registered, {busy} with work": (n, busy) for n, busy in ((few, few), (many, few), (many, many))}
        contestants: dict[str, Round] = {name: partial(self._claim_once, *look) for name, look in looks.items()}
        by_contestant = self._in_turns(contestants, max(1, self._effort.matrix_rounds))
        least, *others = (figures["claim_us"] for figures in by_contestant.values())
        ratios = {"ratio": others[0] / least, "ratio_all_with_work": others[1] / least}
        return {"ours": {"claim": {**by_contestant, **ratios}}}

    def _claim_once(self, registered: int, backlogged: int) -> Figures:
        return {"claim_us": ours.claim_us(self._url, registered, backlogged, self._meter)}

    def _in_turns(self, contestants: Mapping[str, Round], count: int) -> dict[str, dict[str, Any]]:
        seen: dict[str, list[Figures]] = defaultdict(list)
        for number in range(count):
            for name, contestant in contestants.items():
                self._tell(f"round {number + 1} of {count}: {name}")
                seen[name].append(contestant())
        return {name: summary(figures) for name, figures in seen.items()}


def merged(old: dict[str, Any], new: dict[str, Any]) -> dict[str, Any]:
    """Both trees in one; where both have a leaf, the new one."""
    both = {**old, **new}
    for name, branch in old.items():
        if isinstance(branch, dict) and isinstance(new.get(name), dict):
            both[name] = merged(branch, new[name])
    return both


def ratios(figures: dict[str, Any]) -> dict[str, float]:
    """Ours to the best peer, as far as both were measured."""
    ours, best = figures["ours"], max((p.get("drained_jobs_s", 0) for p in figures["peers"].values()), default=0)
    if not best or "drained_jobs_s" not in ours:
        return {}
    return {
        "ratio_to_best_peer": ours["drained_jobs_s"] / best,
        "ratio_not_awaited": ours["not_awaited"]["drained_jobs_s"] / best,
    }


def summary(rounds: Sequence[Figures]) -> dict[str, Any]:
    """The median of each figure, and under ``spread`` its least and greatest."""
    names = rounds[0].keys()
    medians: dict[str, Any] = {name: median(figures[name] for figures in rounds) for name in names}
    medians["spread"] = {name: [min(r[name] for r in rounds), max(r[name] for r in rounds)] for name in names}
    return medians


@contextmanager
def far_away(url: str, delay_ms: float) -> Iterator[str]:
    """The same server behind a proxy that adds ``delay_ms`` to each request."""
    target = urlsplit(url)
    host, port = target.hostname or "localhost", target.port or 6379
    module = "benchmarks.queue.delay_proxy"
    with talking(sys.executable, module, "run", target=f"{host}:{port}", delay_ms=delay_ms) as proxy:
        login = f"{target.netloc.rpartition('@')[0]}@" if "@" in target.netloc else ""
        yield target._replace(netloc=f"{login}127.0.0.1:{proxy.hear('port')['port']}").geturl()
