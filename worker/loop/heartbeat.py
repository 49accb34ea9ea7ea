"""Heartbeat: tells the pool every few seconds that this worker lives, and what it has and does.

One hash with flat readable fields; it vanishes within three beats of the last one, so that a dead worker does not look
alive. In the same breath it learns whether others have come or gone; who they are is read then, and not each time, for
the homes of the affinity policy.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping

from lorapool.shared import malformed
from lorapool.shared.fleet.membership import DRAINING, LOADING, RUNNING
from lorapool.shared.server.redis_retry import retry_until_repaired
from lorapool.worker.adapters.validator import Validator
from lorapool.worker.engine.port import AsyncEngine, EngineCounters, Health, Residency
from lorapool.worker.loop.adapter_loads import AdapterLoads
from lorapool.worker.loop.held_jobs import HeldJobs
from lorapool.worker.loop.peers import Peers
from lorapool.worker.loop.presence import Presence

Fields = dict[str, str | int | float]
# What the pool sums up over all workers there ever were: monotone whole numbers of `fields`.
COUNTED = ("up_ms", "busy_ms", "decode_only_ms", "decode_only_tokens", "prefill_tokens", "decode_tokens", "steps",
           "step_rows", "adapter_loads", "evictions")  # fmt: skip


NOTABLE_S = 1.0  # a step that is younger is told as 0: a beat costs the server what has changed


class Heartbeat:
    """Beats until cancelled. ``identity`` are the fields that never change."""

    def __init__(
        self,
        presence: Presence,
        loads: AdapterLoads,
        engine: AsyncEngine,
        jobs: HeldJobs,
        validator: Validator,
        identity: Mapping[str, str | int | float],
        *,
        rows: int,
        peers: Peers,
    ) -> None:
        self._presence, self._engine, self._jobs, self._identity = presence, engine, jobs, identity
        self._validator = validator
        self._rows, self._peers = rows, peers
        self._loads = loads
        self._state = RUNNING
        self._decoded, self._looked_at = 0, time.monotonic()

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            await retry_until_repaired(self.beat, "heartbeat")
            await asyncio.sleep(self._presence.every_s)

    async def beat(self) -> None:
        """One beat. Raises WorkerIdTaken once another worker has this one's name."""
        self._presence.stride = stride(self._peers.count)
        mark = await self._presence.beat(self.fields(), COUNTED)
        await self._loads.send(self._engine.counters().loaded)
        await self._peers.heed(mark)

    def drain(self) -> None:
        """Say from the next beat on that no more will be claimed."""
        self._state = DRAINING

    async def end(self) -> None:
        """What is left to say once all work is done."""
        await self._loads.send(self._engine.counters().loaded)

    def fields(self) -> Fields:
        """What stands in the worker's hash."""
        counters = self._engine.counters()
        return {
            **self._identity,
            **_health_fields(self._engine.health(), self._state),
            "held": len(self._jobs),
            "free_rows": max(0, self._rows - self._jobs.unfinished()),
            "tokens_per_s": self._rate(counters.decode_tokens),
            **_residency_fields(self._engine.residency()),
            "not_here": " ".join(self._validator.not_here.refs()),
            "judging": self._validator.judging,
            **_counter_fields(counters),
            **self._engine.busy_time(),
            "malformed": malformed.total(),
        }

    def _rate(self, decoded: int) -> float:
        now = time.monotonic()
        elapsed_s, tokens = max(1e-6, now - self._looked_at), decoded - self._decoded
        self._looked_at, self._decoded = now, decoded
        return round(tokens / elapsed_s, 1)


def stride(workers: int) -> int:
    """Every how many beats the numbers are told: in a large fleet not with each, all else with each."""
    return 1 + min(workers // 250, 4)


def _health_fields(health: Health, state: str) -> Fields:
    """``state``: running, draining, or loading while the engine is started again; ``ails``: why it had to be."""
    return {
        "state": LOADING if health.state == "starting" else state,
        "step_age_ms": round(1000 * health.step_age_s) if health.step_age_s >= NOTABLE_S else 0,
        "restarts": health.restarts,
        "ails": health.ails,
    }


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
        "shrinks": counters.shrinks,
        "preemptions": counters.preemptions,
        "adapter_loads": counters.adapter_loads,
        "evictions": counters.evictions,
        **{f"mixed_steps_{adapters}": steps for adapters, steps in sorted(counters.mixed_steps.items())},
    }
