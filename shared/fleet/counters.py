"""Counters: what many adapters counted, asked for together, in parts that keep no event loop and no server long.

Those of one adapter or agent are the broker's ``stats`` and ``agent_stats``. Counts nothing itself.
"""

from __future__ import annotations

from collections.abc import Sequence

from lorapool.shared.malformed import number
from lorapool.shared.queue.replies import numbers
from lorapool.shared.scripts import Scripts
from lorapool.shared.server.connection import PIPELINED, Server
from lorapool.shared.server.keys import Keys

# What is counted of jobs, for their adapter version (`stats:<ref>`) and their agent (`agent:<agent>`); monotone.
OF_JOBS = {
    "submitted": "jobs accepted",
    "claimed": "attempts begun; a job that is retried or lost is claimed again",
    "succeeded": "jobs that ended with an answer",
    "failed": "jobs that ended without one",
    "cancelled": "jobs that ended because somebody asked for it",
    "expired": "jobs that ended because their deadline passed",
    "retried": "attempts that failed and were followed by another",
    "released": "jobs that a worker gave back, their attempt not counted",
    "reaped": "jobs taken back from a worker that was silent for longer than its lease, or whose engine ended",
    "lifted": "such losses that a worker took back because it had only been slow",
    "dead": "jobs that were given up and became dead letters",
    "stale": "writes refused because the worker had lost its lease",
    "prompt_tokens": "tokens of prompts, of jobs that a worker ended",
    "completion_tokens": "new tokens, of jobs that a worker ended",
    "slot_hits": "jobs that a worker ended and whose adapter was on the device when they came",
    "slot_misses": "jobs that a worker ended and whose adapter was not",
    "loads": "times that the adapter was brought into a device slot; of adapters alone",
    "queued_ms": "milliseconds from submission to the claim, summed over ended jobs",
    "load_ms": "milliseconds that jobs waited for their adapter to be loaded",
    "first_token_ms": "milliseconds from submission to the first token",
    "total_ms": "milliseconds from submission to the end",
}
# What workers count since they started, in their heartbeat (`worker:<worker>`); `usage` has the sums, over all workers
# there ever were, of those marked so.
OF_WORKERS = {
    "up_ms": "milliseconds that the device has been the worker's; summed in usage",
    "busy_ms": "milliseconds spent in steps; summed in usage",
    "decode_only_ms": "milliseconds spent in steps that read no prompt; summed in usage",
    "decode_only_tokens": "new tokens of those steps; summed in usage",
    "prefill_tokens": "prompt tokens read; summed in usage",
    "decode_tokens": "new tokens drawn; summed in usage",
    "steps": "steps; summed in usage",
    "step_rows": "rows of all steps; divided by steps, how full the batch was; summed in usage",
    "adapter_loads": "adapters brought into a device slot; summed in usage",
    "evictions": "adapters that made room for another; summed in usage",
    "joins": "steps at which a job joined while others ran",
    "failed_steps": "steps that ended with an error",
    "shrinks": "times that rows were given up for want of device memory",
    "preemptions": "rows given up for a job that had waited too long; they go on later",
    "mixed_steps_<n>": "steps of n adapters together with rows of the base model alone",
    "restarts": "times that the engine was started again",
    "malformed": "entries and records stepped over because lorapool does not write them",
}


class Counters:
    """``broker.counters``."""

    def __init__(self, server: Server, scripts: Scripts, keys: Keys) -> None:
        self._server, self._scripts, self._keys = server, scripts, keys

    async def of_each(self, refs: Sequence[str]) -> list[dict[str, int | float]]:
        """As the broker's ``stats`` for each."""
        found: list[dict[str, int | float]] = []
        for start in range(0, len(refs), PIPELINED):
            part = refs[start : start + PIPELINED]
            stored = await self._server.pipeline([("HGETALL", self._keys.stats(ref)) for ref in part])
            found += map(numbers, stored)
        return found

    async def of_all(self, refs: Sequence[str]) -> dict[str, int | float]:
        """The sum over all of these, added up by the server: one call for 256."""
        sums: dict[str, int | float] = {}
        for start in range(0, len(refs), PIPELINED):
            part = numbers(await self._scripts.run("totals", *refs[start : start + PIPELINED]))
            sums |= {name: sums.get(name, 0) + value for name, value in part.items()}
        return sums

    async def claimed_ms(self, refs: Sequence[str]) -> list[int | None]:
        """When each of these adapters was last claimed from, None for never."""
        found = await self._server.pipeline([("HGET", self._keys.adapter(ref), "claimed_ms") for ref in refs])
        return [int(number(value)) or None for value in found]
