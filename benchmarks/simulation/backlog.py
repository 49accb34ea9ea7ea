"""What waits, as the queue keeps it: a stream an adapter, the starvation clocks, the tokens served, and the view.

Mirrors shared/scripts (enqueue, claim, view) in memory: same clocks, same bounds, same rules for who enters. Every
operation is logarithmic but for moving pointers within a list. Knows no workers and no policy.
"""

from __future__ import annotations

import math
from bisect import bisect_left, insort
from collections import Counter, deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from lorapool.shared.queue.protocol import View, WaitingAdapter
from lorapool.shared.server.terms import Terms

VIEW_SIZE = 32
WINDOW = Terms().agent_window
LAST_WORKERS = Terms().last_workers
OVER_QUOTA_S = Terms().over_quota_ms / 1000


@dataclass(slots=True)
class SimJob:
    """``service_s``: how long a row computes it. Times are seconds of the simulation."""

    ref: str
    agent: int
    arrived_s: float
    service_s: float
    tokens: int = 64


class Ranking:
    """Refs in order of a number, each once."""

    def __init__(self) -> None:
        self.keys: dict[str, float] = {}
        self._order: list[tuple[float, str]] = []

    def put(self, ref: str, key: float) -> None:
        self.drop(ref)
        self.keys[ref] = key
        insort(self._order, (key, ref))

    def drop(self, ref: str) -> None:
        if ref in self.keys:
            del self._order[bisect_left(self._order, (self.keys.pop(ref), ref))]

    def first(self, count: int) -> list[str]:
        return [ref for _, ref in self._order[:count]]

    def least(self) -> float:
        return self._order[0][0] if self._order else 0.0

    def at(self, index: int) -> str:
        return self._order[index][1]

    def __len__(self) -> int:
        return len(self._order)


class Backlog:
    """Streams with jobs, and the counts of those running."""

    def __init__(self) -> None:
        self.ready = Ranking()  # claimable -> arrival of its oldest job
        self.undelivered: Counter[tuple[int, str]] = Counter()  # agent's window, by (agent, ref)
        self.last_workers: dict[str, list[int]] = {}  # the latest first
        self._streams: dict[str, deque[SimJob]] = {}
        self._over_quota: dict[str, deque[SimJob]] = {}  # what one agent sent beyond a quarter of its window
        self._served = Ranking()  # adapters with waiting or running jobs -> tokens served
        self._served_before: dict[str, float] = {}
        self._running: Counter[str] = Counter()
        self._seen: dict[str, WaitingAdapter] = {}  # as views show them, until something changes

    def enqueue(self, job: SimJob) -> None:
        over_quota = self.undelivered[job.agent, job.ref] >= WINDOW / 4
        self.undelivered[job.agent, job.ref] += 1
        lane = self._over_quota if over_quota else self._streams
        lane.setdefault(job.ref, deque()).append(job)
        self._seen.pop(job.ref, None)
        turn_s = job.arrived_s + OVER_QUOTA_S * over_quota
        if turn_s < self.ready.keys.get(job.ref, math.inf):
            self.ready.put(job.ref, turn_s)
        if job.ref not in self._served.keys:
            self._served.put(job.ref, max(self._served_before.get(job.ref, 0.0), self._served.least()))

    def claim(self, worker: int, ref: str, most: int) -> list[SimJob]:
        """Up to ``most`` jobs of one adapter; its starvation clock is then that of the next one."""
        jobs: list[SimJob] = []
        for waiting in self._lanes(ref):
            jobs += [waiting.popleft() for _ in range(min(most - len(jobs), len(waiting)))]
        if not jobs:
            return []
        for job in jobs:
            self.undelivered[job.agent, ref] -= 1
        self._running[ref] += len(jobs)
        self._seen.pop(ref, None)
        others = [other for other in self.last_workers.get(ref, ()) if other != worker]
        self.last_workers[ref] = [worker, *others[: LAST_WORKERS - 1]]
        self._served.put(ref, self._served.keys[ref] + sum(job.tokens for job in jobs))
        if stream := self._streams.get(ref):
            self.ready.put(ref, stream[0].arrived_s)
        elif late := self._over_quota.get(ref):
            self.ready.put(ref, late[0].arrived_s + OVER_QUOTA_S)
        else:
            self.ready.drop(ref)
        return jobs

    def _lanes(self, ref: str) -> list[deque[SimJob]]:
        """Those over quota last, until their turn has come."""
        stream, late = self._streams.get(ref, deque()), self._over_quota.get(ref, deque())
        turned = stream and late and late[0].arrived_s + OVER_QUOTA_S < stream[0].arrived_s
        return [late, stream] if turned else [stream, late]

    def finish(self, job: SimJob) -> None:
        self._running[job.ref] -= 1
        if not self._running[job.ref] and not self.jobs_of(job.ref):
            self._served_before[job.ref] = self._served.keys[job.ref]
            self._served.drop(job.ref)

    def jobs_of(self, ref: str) -> Sequence[SimJob]:
        """Those not yet claimed."""
        return (*self._streams.get(ref, ()), *self._over_quota.get(ref, ()))

    def view(self, residents: Iterable[str], now_s: float) -> View:
        """As view.lua builds it: the longest waiting, the least served and the residents, of those claimable."""
        seen = dict.fromkeys(self.ready.first(VIEW_SIZE))
        if len(self.ready) > VIEW_SIZE:
            seen |= dict.fromkeys(self._claimable(self._served.first(VIEW_SIZE)))
            seen |= dict.fromkeys(self._claimable(residents))
        return View(
            now_ms=round(now_s * 1000),
            waiting=tuple(map(self._waiting, seen)),
            next_due_ms=None,
            ready_count=len(self.ready),
        )

    def _claimable(self, refs: Iterable[str]) -> list[str]:
        keys = self.ready.keys
        return [ref for ref in refs if ref in keys]

    def _waiting(self, ref: str) -> WaitingAdapter:
        if (seen := self._seen.get(ref)) is None:
            depth = len(self._streams.get(ref, ())) + len(self._over_quota.get(ref, ()))
            seen = WaitingAdapter(ref, round(self.ready.keys[ref] * 1000), depth, self._served.keys[ref])
            self._seen[ref] = seen
        return seen
