"""Who asks for what, when: Poisson arrivals over adapters of Zipf popularity, and an agent that floods."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import accumulate

from benchmarks.simulation.backlog import SimJob

ZIPF = 1.0  # popularity of the k-th adapter is 1/k to this power
AGENTS = 100
FLOODER = AGENTS  # one more
LEAST_SERVICE, MOST_SERVICE = 0.5, 1.5  # of the mean, uniformly


@dataclass(frozen=True)
class Traffic:
    """``rate_jobs_s`` for ``duration_s``, each of ``service_s`` row-seconds on average."""

    adapters: int
    rate_jobs_s: float
    service_s: float
    duration_s: float
    seed: int = 0

    def jobs(self) -> Iterator[SimJob]:
        """In order of arrival."""
        draw = random.Random(self.seed)
        refs = [ref_of(index) for index in range(self.adapters)]
        weights = list(accumulate(1 / (rank + 1) ** ZIPF for rank in range(self.adapters)))
        now_s = 0.0
        while (now_s := now_s + draw.expovariate(self.rate_jobs_s)) < self.duration_s:
            [ref] = draw.choices(refs, cum_weights=weights)
            service_s = self.service_s * draw.uniform(LEAST_SERVICE, MOST_SERVICE)
            yield SimJob(ref, draw.randrange(AGENTS), now_s, service_s)


@dataclass(frozen=True)
class Flood:
    """One agent's ``jobs`` on one adapter, all wanted at ``at_s``: as many wait as its window admits."""

    adapter: int
    jobs: int
    at_s: float
    service_s: float
    window: int = 64


def ref_of(adapter: int) -> str:
    return f"adapter-{adapter}@1"
