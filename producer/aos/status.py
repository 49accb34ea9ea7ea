"""Status: what AOS calls the server's status and metrics, computed from what the pool says at that moment.

Every number is of the whole pool since its first job, whoever asked, except where a key says otherwise. Pure, apart
from ``look``, which asks.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import quantiles
from typing import Any

from lorapool.producer.aos.config import LoRAxConfig
from lorapool.producer.aos.registry import residents
from lorapool.producer.client.client import Client
from lorapool.shared.catalog.catalog import PoolConfig
from lorapool.shared.malformed import number
from lorapool.shared.queue.protocol import Backlog

_ENDS = ("succeeded", "failed", "cancelled", "expired")


@dataclass(frozen=True)
class Snapshot:
    """The pool at one moment; of one that does not answer, nothing is known."""

    pool: PoolConfig | None
    workers: Sequence[Mapping[str, Any]]
    adapter_ids: frozenset[str]
    counters: Mapping[str, int | float]  # summed over adapters and the base model
    refusals: Mapping[str, int]
    backlog: Backlog

    @property
    def serving(self) -> list[Mapping[str, Any]]:
        """Workers that claim jobs."""
        return [beat for beat in self.workers if beat.get("state") == "running"]


@dataclass(frozen=True)
class Own:
    """What only this facade knows."""

    config: LoRAxConfig
    address: str
    attached: bool
    in_flight: int
    latencies_ms: Sequence[float]
    refusals: Mapping[str, int] = field(default_factory=dict)  # not yet reported to the pool


async def look(client: Client) -> Snapshot:
    """Ask for all of it."""
    pool, workers, refs, counters, refusals, backlog = await asyncio.gather(
        client.config(),
        client.workers(),
        client.adapters.refs(),
        client.totals(),
        client.refusals(),
        client.backlog(),
    )
    return Snapshot(pool, workers, frozenset(ref.partition("@")[0] for ref in refs), counters, refusals, backlog)


def status_of(own: Own, seen: Snapshot) -> dict[str, Any]:
    """AOS's keys, then ours."""
    loaded = sorted({ref.partition("@")[0] for ref in residents(seen.workers)})
    return {
        "running": own.attached and bool(seen.serving),
        "base_model": seen.pool.base_model if seen.pool else own.config.base_model,
        "server_address": own.address,
        "total_adapters": len(seen.adapter_ids),
        "loaded_adapters": len(loaded),
        "cache_size": sum(int(number(beat.get("slots"))) for beat in seen.workers),
        "active_requests": sum(seen.backlog.running.values()),
        "metrics": _metrics(seen, Counter(own.refusals), len(loaded)),
        "loaded_adapter_ids": loaded,
        "config": _limits(own.config, seen.workers),
        "queue_depth": sum(seen.backlog.waiting.values()),
        "oldest_wait_ms": seen.backlog.oldest_wait_ms,
        "workers": [_worker(beat) for beat in seen.workers],
        "own_requests": own.in_flight,
        "own_latency_ms": _percentiles(own.latencies_ms),
    }


def unknown_status(own: Own, message: str) -> dict[str, Any]:
    """The same keys for a pool that does not answer: what is not known is None, never 0."""
    nothing = Snapshot(None, (), frozenset(), {}, {}, Backlog({}, {}, None))
    shape = status_of(own, nothing)
    numbers = ("total_adapters", "loaded_adapters", "cache_size", "active_requests", "queue_depth")
    blank = dict.fromkeys(numbers) | {"metrics": dict.fromkeys(shape["metrics"])}
    return shape | blank | {"running": False, "message": message}


def _metrics(seen: Snapshot, own_refusals: Counter[str], loaded: int) -> dict[str, Any]:
    counters = seen.counters
    ends = {name: int(counters.get(name, 0)) for name in _ENDS}
    refused = sum(seen.refusals.values()) + own_refusals.total()
    ended = sum(ends.values())
    failed = ended - ends["succeeded"] + refused
    return {
        "total_requests": ends["succeeded"] + failed,
        "successful_requests": ends["succeeded"],
        "failed_requests": failed,
        "average_latency_ms": counters.get("total_ms", 0) / ended if ended else 0.0,
        "adapters_loaded": loaded,
        "cache_hits": int(counters.get("slot_hits", 0)),
        "cache_misses": int(counters.get("slot_misses", 0)),
        "cancelled_requests": ends["cancelled"],
        "expired_requests": ends["expired"],
        "refused_requests": refused,
        "adapter_loads": int(counters.get("loads", 0)),
        "prompt_tokens": int(counters.get("prompt_tokens", 0)),
        "tokens_generated": int(counters.get("completion_tokens", 0)),
    }


def _limits(config: LoRAxConfig, workers: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """What holds: the batch size is the workers' own once there are any."""
    batches = [int(number(beat["max_batch"])) for beat in workers if beat.get("max_batch")]
    return {
        "max_concurrent_requests": config.max_concurrent_requests,
        "max_batch_size": max(batches, default=config.max_batch_size),
        "gpu_memory_utilization": config.gpu_memory_utilization,
    }


def _worker(beat: Mapping[str, Any]) -> dict[str, Any]:
    names = ("worker", "state", "device", "dtype", "base_model")
    numbers = ("slots", "slot_bytes", "max_batch", "held", "free_rows", "adapter_loads", "evictions", "age_ms")
    return {
        **{name: beat.get(name, "") for name in names},
        **{name: int(number(beat[name])) for name in numbers if name in beat},
        "resident": str(beat.get("resident", "")).split(),
    }


def _percentiles(latencies_ms: Sequence[float]) -> dict[str, float | int | None]:
    """Of this facade's latest answers; None with fewer than two."""
    cuts = quantiles(latencies_ms, n=100, method="inclusive") if len(latencies_ms) > 1 else None
    names = {"p50": 49, "p95": 94, "p99": 98}
    return {"count": len(latencies_ms)} | {name: cuts[at] if cuts else None for name, at in names.items()}
