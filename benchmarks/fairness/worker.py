"""A real worker whose runner sleeps: steps and adapter loads take their time and no CPU; and two rival policies.

``python -m benchmarks.fairness.worker work --redis-url URL --worker-id NAME --policy affinity|arrival|random``.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import sys
import time
from dataclasses import dataclass
from functools import partial

from benchmarks.queue.noop_model import (
    Clock,
    NoopModel,
    NoopRunner,
    NoopSlots,
    NoopWeights,
    served_in_process,
)
from lorapool.shared import logs
from lorapool.shared.connection import PoolConnection
from lorapool.shared.queue.protocol import View
from lorapool.shared.server.settings import redis_settings
from lorapool.shared.server.terms import Terms
from lorapool.worker import cli
from lorapool.worker.config import WorkerConfig
from lorapool.worker.engine.adapter_cache import AdapterCache
from lorapool.worker.engine.adapter_source import AdapterSource
from lorapool.worker.engine.continuous_batch import ContinuousBatch
from lorapool.worker.engine.model import Loaded, OnProgress
from lorapool.worker.engine.native_engine import NativeEngine
from lorapool.worker.engine.port import Facts
from lorapool.worker.engine.scheduler import Scheduler
from lorapool.worker.engine.sequence import Batch, Drawn
from lorapool.worker.loop import claimer
from lorapool.worker.loop.affinity import Choice, Holding, Homes, Policy

ROWS = SLOTS = 32
STEP_S = 0.05
LOAD_S = 0.2
BEAT_S = 0.5
WHOLE_BACKLOG = 4_000  # adapters in a rival's view; a bounded one would show it its residents more often than others


class SleepingRunner(NoopRunner):
    """A step takes as long with one row as with all."""

    def step(self, batch: Batch) -> list[Drawn]:
        time.sleep(STEP_S)
        return super().step(batch)


@dataclass(frozen=True)
class SleepingModel(NoopModel):
    """Every slot miss is a load: host memory has room for the adapter that is on its way only."""

    def load(self, on_progress: OnProgress) -> Loaded:
        adapters = AdapterCache(NoopSlots(self.config.slots), _load, host_bytes=NoopWeights("").nbytes)
        runner, scheduler = SleepingRunner(self.clock), Scheduler(max_batch=self.config.max_batch)
        batch = ContinuousBatch(runner, adapters, scheduler)
        facts = Facts("none", "float32", runner.max_model_len, {"base_model": "noop"})
        return Loaded(NativeEngine(batch, adapters, facts))


def _load(source: AdapterSource) -> NoopWeights:
    time.sleep(LOAD_S)
    return NoopWeights(source.digest)


def by_arrival(view: View, holding: Holding, free_rows: int, _policy: Policy, _worker: str, _homes: Homes) -> Choice:
    """The oldest job whose adapter fits the slots, one at a time."""
    fitting = [item for item in view.waiting if holding.fits(item.ref) or holding.open_slots() > 0]
    oldest = min(fitting, key=lambda item: item.since_ms, default=None)
    return Choice((oldest.ref,), 1, 1) if oldest is not None and free_rows > 0 else Choice()


def at_random(view: View, holding: Holding, free_rows: int, _policy: Policy, _worker: str, _homes: Homes) -> Choice:
    """A job of any adapter in the view that fits the slots, one at a time."""
    fitting = [item.ref for item in view.waiting if holding.fits(item.ref) or holding.open_slots() > 0]
    return Choice((random.choice(fitting),), 1, 1) if fitting and free_rows > 0 else Choice()


RIVALS = {"arrival": by_arrival, "random": at_random}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("role", choices=["work"])
    parser.add_argument("--redis-url", required=True)
    parser.add_argument("--worker-id", required=True)
    parser.add_argument("--policy", choices=["affinity", *RIVALS], required=True)
    arguments = parser.parse_args()
    if arguments.policy != "affinity":  # the rivals choose for themselves, never unseen, and of all that waits
        vars(claimer).update(choose=RIVALS[arguments.policy], guess=lambda *_: Choice())
        vars(cli).update(PoolConnection=partial(PoolConnection, terms=Terms(view_size=WHOLE_BACKLOG)))
    logs.configure("warning", json=True)
    config = WorkerConfig.parse(
        worker_id=arguments.worker_id, base_model="noop", max_batch=ROWS, claim_ahead=0, slots=SLOTS, beat_s=BEAT_S
    )
    model = SleepingModel(config, Clock())
    sys.exit(asyncio.run(cli.serve(config, redis_settings(arguments.redis_url), served_in_process(model))))


if __name__ == "__main__":
    main()
