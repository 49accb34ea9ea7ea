"""Counters: what was counted of adapters and agents in one partition, and of requests refused before they were jobs.

Most is counted by the queue's own scripts. What others add here comes in reports, each with a name of its own, and
counts once, however often it is sent. What many adapters counted is asked for in parts that keep no event loop and no
server long.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from lorapool.shared.connection import Partition
from lorapool.shared.malformed import number, numbers, readable, whole_numbers
from lorapool.shared.scripts import records
from lorapool.shared.server.server import PIPELINED, Arg

Numbers = dict[str, int | float]

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
    """All are monotone. All methods raise RedisUnreachable, RedisAuthFailed or RedisFull."""

    def __init__(self, partition: Partition) -> None:
        self._server, self._scripts, self._keys = partition.server, partition.scripts, partition.keys

    async def of_adapter(self, ref: str) -> Numbers:
        return numbers(await self._server.command("HGETALL", self._keys.stats(ref)))

    async def of_agent(self, agent: str) -> Numbers:
        """The same, of one agent over all adapters."""
        return numbers(await self._server.command("HGETALL", self._keys.agent(agent)))

    async def of_adapters(self, refs: Sequence[str]) -> list[Numbers]:
        """As ``of_adapter`` for each."""
        counted: list[Numbers] = []
        for start in range(0, len(refs), PIPELINED):
            part = refs[start : start + PIPELINED]
            stored = await self._server.pipeline([("HGETALL", self._keys.stats(ref)) for ref in part])
            counted += map(numbers, stored)
        return counted

    async def sum_of(self, refs: Sequence[str]) -> Numbers:
        """The sum over all of these, added up by the server: one call for 256."""
        sums: Numbers = {}
        for start in range(0, len(refs), PIPELINED):
            part = numbers(await self._scripts.run("totals", *refs[start : start + PIPELINED]))
            sums |= {name: sums.get(name, 0) + value for name, value in part.items()}
        return sums

    async def by_adapter(self) -> dict[str, Numbers]:
        """Of every adapter that ever had a job, by ref; scans the keys."""
        return await self._all("stats")

    async def by_agent(self) -> dict[str, Numbers]:
        """Of every agent that ever had a job; scans the keys."""
        return await self._all("agent")

    async def claimed_ms(self, refs: Sequence[str]) -> list[int | None]:
        """When each of these adapters was last claimed from, None for never."""
        times = await self._server.pipeline([("HGET", self._keys.adapter(ref), "claimed_ms") for ref in refs])
        return [int(number(time)) or None for time in times]

    async def add_loads(self, worker: str, report: str, loads: Mapping[str, int]) -> None:
        """Add to the ``loads`` of adapters: how often each went into a device slot."""
        await self._add(worker, report, {(f"stats:{ref}", "loads"): n for ref, n in loads.items()})

    async def add_refusals(self, client: str, report: str, reasons: Mapping[str, int]) -> None:
        """Add to ``refusals``, by reason."""
        await self._add(client, report, {("refused", reason): n for reason, n in reasons.items()})

    async def refusals(self) -> dict[str, int]:
        """Requests refused before they became jobs, by the error's name; of clients that count them."""
        return whole_numbers(await self._server.command("HGETALL", self._keys.one("refused")))

    async def _all(self, kind: str) -> dict[str, Numbers]:
        prefix = f"{self._keys.prefix}{kind}:"
        keys = await self._server.scan(f"{prefix}*")
        stored = await self._server.pipeline([("HGETALL", key) for key in keys])
        named = readable("counters", zip(keys, stored, strict=True), lambda one: (one[0].decode(), numbers(one[1])))
        return {key.removeprefix(prefix): counted for key, counted in named}

    async def _add(self, reporter: str, report: str, counts: Mapping[tuple[str, str], int]) -> None:
        added: list[Arg] = []
        for (key, field), n in counts.items():
            added += records.Counted(key=key, field=field, n=n)
        await self._scripts.run("tally", *records.Tally(reporter=reporter, report=report), *added)
