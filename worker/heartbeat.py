"""Heartbeat: tells the pool every few seconds that this worker lives, and what it has and does.

One hash with flat readable fields; it vanishes within three beats of the last one, so that a dead worker does not look
alive. In the same breath it learns who else lives, for the homes of the affinity policy.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Callable, Mapping

from lorapool.shared.broker import Broker
from lorapool.shared.catalog import Catalog
from lorapool.worker.adapters import Residency
from lorapool.worker.engine import EngineCounters
from lorapool.worker.engine_thread import EngineThread
from lorapool.worker.held_jobs import HeldJobs
from lorapool.worker.load_report import LoadReport
from lorapool.worker.persistence import persist

Fields = dict[str, str | int | float]
# What the pool sums up over all workers there ever were: monotone whole numbers of `fields`.
COUNTED = ("up_ms", "busy_ms", "decode_only_ms", "decode_only_tokens", "prefill_tokens", "decode_tokens", "steps",
           "step_rows", "adapter_loads", "evictions")  # fmt: skip


class Heartbeat:
    """Beats until cancelled. ``identity`` are the fields that never change."""

    def __init__(
        self,
        catalog: Catalog,
        broker: Broker,
        engine: EngineThread,
        jobs: HeldJobs,
        identity: Mapping[str, str | int | float],
        *,
        worker: str,
        rows: int,
        every_s: float,
        on_peers: Callable[[list[str]], None],
    ) -> None:
        self._catalog, self._engine, self._jobs, self._identity = catalog, engine, jobs, identity
        self._worker, self._rows, self._every_s, self._on_peers = worker, rows, every_s, on_peers
        self._loads = LoadReport(broker.tally, worker)
        self._state = "running"
        self._decoded, self._looked_at = 0, time.monotonic()
        self._boot, self._counted = secrets.token_hex(6), dict.fromkeys(COUNTED, 0)

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            await persist(self.beat, "heartbeat")
            await asyncio.sleep(self._every_s)

    async def beat(self) -> None:
        """One beat."""
        await self._tell()
        await self._loads.send(self._engine.counters().loaded)
        self._on_peers([peer["worker"] for peer in await self._catalog.workers() if peer.get("state") != "draining"])

    def drain(self) -> None:
        """Say from the next beat on that no more will be claimed."""
        self._state = "draining"

    async def _tell(self) -> None:
        fields = self.fields()
        await self._catalog.beat(
            self._worker, fields, round(3000 * self._every_s), boot=self._boot, counted=self._counted
        )
        self._counted = {name: max(self._counted[name], int(fields[name])) for name in COUNTED}

    async def end(self) -> None:
        """What is left to say once all work is done."""
        await self._loads.send(self._engine.counters().loaded)

    def fields(self) -> Fields:
        """What stands in the worker's hash."""
        counters = self._engine.counters()
        return {
            **self._identity,
            "state": self._state,
            "held": len(self._jobs),
            "free_rows": max(0, self._rows - self._jobs.unfinished()),
            "tokens_per_s": self._rate(counters.decode_tokens),
            **_residency_fields(self._engine.residency()),
            **_counter_fields(counters),
            **self._engine.timesheet.totals(),
        }

    def _rate(self, decoded: int) -> float:
        now = time.monotonic()
        elapsed_s, tokens = max(1e-6, now - self._looked_at), decoded - self._decoded
        self._looked_at, self._decoded = now, decoded
        return round(tokens / elapsed_s, 1)


def _residency_fields(residency: Residency) -> Fields:
    """Adapter refs by where they are, space-separated."""
    return {
        "resident": " ".join(sorted(residency.device)),
        "loading": " ".join(sorted(residency.loading)),
        "on_host": " ".join(sorted(residency.host)),
    }


def _counter_fields(counters: EngineCounters) -> Fields:
    """Monotone since the worker's start; ``mixed_steps_<n>``: steps of n adapters together with base rows."""
    return {
        "steps": counters.steps,
        "step_rows": counters.step_rows,
        "prefill_tokens": counters.prefill_tokens,
        "decode_tokens": counters.decode_tokens,
        "joins": counters.joins,
        "failed_steps": counters.failed_steps,
        "preemptions": counters.preemptions,
        "adapter_loads": counters.adapter_loads,
        "evictions": counters.evictions,
        **{f"mixed_steps_{adapters}": steps for adapters, steps in sorted(counters.mixed_steps.items())},
    }
