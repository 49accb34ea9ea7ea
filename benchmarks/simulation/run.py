"""The events of one simulated run, and what came of it.

An arrival wakes one of the adapter's last workers if one waits (for the policies that know of residency), else whoever
has waited longest, as the queue's markers do; a worker that took something while more is claimable wakes the next.
Knows no policy and no plots.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from itertools import count

from benchmarks.simulation.backlog import Backlog, SimJob
from benchmarks.simulation.fleet import Shape, SimWorker
from benchmarks.simulation.policies import Chooser
from benchmarks.simulation.workload import FLOODER, Flood, ref_of

BLOCKED_S = 0.25  # a worker with rows but no slot for what waits looks again after so long


@dataclass
class Outcome:
    """``waits_s``: arrival to the start of computing, of jobs that arrived after the warm-up, flood apart."""

    jobs: int = 0
    loads: int = 0
    claims: int = 0
    waits_s: list[float] = field(default_factory=list)
    flood_waits_s: list[float] = field(default_factory=list)
    longest_backlogged_s: float = 0.0  # that an adapter's next job waited

    @property
    def loads_per_job(self) -> float:
        return self.loads / self.jobs

    def wait_s(self, share: float) -> float:
        """The quantile ``share`` of the waits."""
        ordered = sorted(self.waits_s)
        return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


class Run:
    """One policy, one fleet, one traffic."""

    def __init__(self, chooser: Chooser, workers: int, shape: Shape, *, warm_up_s: float = 0.0) -> None:
        self._chooser, self._warm_up_s = chooser, warm_up_s
        self._backlog, self._outcome = Backlog(), Outcome()
        self._workers = [SimWorker(index, shape) for index in range(workers)]
        self._waiting: dict[int, None] = dict.fromkeys(range(workers))  # with free rows, longest waiting first
        self._retrying: set[int] = set()
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._order = count()
        self._now_s = 0.0
        self._flood: Flood | None = None
        self._flood_left = 0

    def go(self, arrivals: Iterable[SimJob], flood: Flood | None = None) -> Outcome:
        """Until the last arrival; what still waits then is counted with the wait it has had."""
        if flood is not None:
            self._flood, self._flood_left = flood, flood.jobs
            self._at(flood.at_s, self._pour)
        for job in arrivals:
            self._pass_until(job.arrived_s)
            self._arrive(job)
        self._count_waiting()
        self._outcome.loads = sum(worker.loads for worker in self._workers)
        return self._outcome

    def _pass_until(self, time_s: float) -> None:
        while self._events and self._events[0][0] <= time_s:
            self._now_s, _, event = heapq.heappop(self._events)
            event()
        self._now_s = time_s

    def _at(self, time_s: float, event: Callable[[], None]) -> None:
        heapq.heappush(self._events, (time_s, next(self._order), event))

    def _arrive(self, job: SimJob) -> None:
        self._backlog.enqueue(job)
        self._wake(job.ref)

    def _pour(self) -> None:
        """The flooder submits as long as its window has room."""
        flood = self._flood
        if flood is None:
            return
        ref = ref_of(flood.adapter)
        while self._flood_left and self._backlog.undelivered[FLOODER, ref] < flood.window:
            self._flood_left -= 1
            self._arrive(SimJob(ref, FLOODER, self._now_s, flood.service_s))

    def _wake(self, ref: str) -> None:
        holders = self._backlog.last_workers.get(ref, ()) if self._chooser.wakes_last_workers else ()
        holder = next((index for index in holders if self._listens(index)), None)
        if holder is not None:
            self._look(holder)
        elif self._waiting:
            self._look(next(iter(self._waiting)))

    def _listens(self, index: int) -> bool:
        """A worker with free rows hears of jobs of its own adapters, also while it leaves other jobs to others."""
        return index in self._waiting or (index in self._retrying and self._workers[index].free_rows > 0)

    def _look(self, index: int) -> None:
        """Claim until nothing fits or nothing is left, then wait."""
        worker = self._workers[index]
        self._waiting.pop(index, None)
        while self._take(worker):
            pass
        if worker.free_rows and not len(self._backlog.ready):
            self._waiting[index] = None
        elif worker.free_rows and index not in self._retrying:
            self._retrying.add(index)
            self._at(self._now_s + BLOCKED_S, lambda: self._retry(index))

    def _retry(self, index: int) -> None:
        self._retrying.discard(index)
        self._look(index)

    def _take(self, worker: SimWorker) -> bool:
        if not worker.free_rows or not len(self._backlog.ready):
            return False
        choice = self._chooser.choose(self._backlog, worker, self._now_s)
        left, refs = choice.jobs, set()
        for ref in choice.preferences:
            jobs = self._claim(worker, ref, min(left, choice.per_adapter or left)) if left else []
            left -= len(jobs)
            if jobs:
                refs.add(ref)
        if refs:
            self._outcome.claims += 1
        if refs and len(self._backlog.ready) and self._waiting:
            other = next(iter(self._waiting))
            self._waiting.pop(other)
            self._at(self._now_s, lambda: self._look(other))
        self._pour_if_begun()
        return bool(refs)

    def _pour_if_begun(self) -> None:
        if self._flood is not None and self._now_s > self._flood.at_s and self._flood_left:
            self._at(self._now_s, self._pour)

    def _claim(self, worker: SimWorker, ref: str, most: int) -> list[SimJob]:
        since_s = self._backlog.ready.keys.get(ref, self._now_s)
        jobs = self._backlog.claim(worker.index, ref, most)
        if jobs:
            self._outcome.longest_backlogged_s = max(self._outcome.longest_backlogged_s, self._now_s - since_s)
        for job in jobs:
            self._start(worker, job)
        return jobs

    def _start(self, worker: SimWorker, job: SimJob) -> None:
        begins_s = worker.start(job, self._now_s)
        self._outcome.jobs += 1
        self._count_wait(job, begins_s - job.arrived_s)
        self._at(begins_s + job.service_s, lambda: self._finish(worker, job))

    def _finish(self, worker: SimWorker, job: SimJob) -> None:
        worker.finish(job)
        self._backlog.finish(job)
        self._look(worker.index)

    def _count_wait(self, job: SimJob, wait_s: float) -> None:
        if job.agent == FLOODER:
            self._outcome.flood_waits_s.append(wait_s)
        elif job.arrived_s >= self._warm_up_s:
            self._outcome.waits_s.append(wait_s)

    def _count_waiting(self) -> None:
        for ref, since_s in self._backlog.ready.keys.items():
            waited_s = self._now_s - since_s
            self._outcome.longest_backlogged_s = max(self._outcome.longest_backlogged_s, waited_s)
            for job in self._backlog.jobs_of(ref):
                self._count_wait(job, self._now_s - job.arrived_s)
