"""Every counter of an adapter is the sum of what its job records say; over real worker processes, in rough weather."""

from __future__ import annotations

import asyncio
import signal
from collections import Counter
from collections.abc import Mapping
from typing import Any

from redis.asyncio import Redis

from lorapool.producer.client.client import Client
from lorapool.producer.client.handle import JobHandle
from lorapool.shared.errors import LorapoolError
from lorapool.shared.job import JobState
from tests.fake_model import BROKEN
from tests.fleet import add_adapters, alive, fake_worker, until

Record = Mapping[str, Any]
REFS = ("a@1", "b@1", "_base")


def recomputed(records: list[Record]) -> dict[str, int]:
    """What the counters must be, from the records alone."""
    sums: Counter[str] = Counter(submitted=len(records))
    for record in records:
        sums[record["state"]] += 1
        sums["claimed"] += int(record["fence"])
        sums["released"] += int(record["fence"]) - int(record["attempts"])
        sums["reaped"] += int(record["lost"])
        sums["retried"] += int(record.get("retries") or 0)
        sums["dead"] += bool(record.get("dead"))
        for name in ("prompt_tokens", "completion_tokens", "load_ms"):
            sums[name] += int(record.get(name) or 0)
        if record.get("resident"):
            sums["slot_hits" if record["resident"] == "1" else "slot_misses"] += 1
        submitted = int(record["submitted_ms"])
        for name, field in (
            ("queued_ms", "started_ms"),
            ("first_token_ms", "first_token_ms"),
            ("total_ms", "finished_ms"),
        ):
            if record.get(field):
                sums[name] += int(record[field]) - submitted
    return {name: value for name, value in sums.items() if value}


async def ended(handle: JobHandle) -> Record:
    """Its record once it is terminal."""
    try:
        await handle.result(60)
    except LorapoolError:
        assert (await handle.state()).terminal
    return await handle.record()


async def test_counters_are_the_sum_of_the_records(redis_url: str, redis: Redis) -> None:
    """Jobs that succeed, fail, are retried, cancelled, expire, are released and lose their worker: every field of
    HGETALL stats can be recomputed from the records."""
    options: dict[str, Any] = {"lease_s": 0.6, "max_batch": 6, "claim_ahead": 2, "slots": 2}
    slow = {"step_s": 0.02, "max_model_len": 200}
    asked = [
        {"adapter": name, "prompt": f"number {n}", "max_new_tokens": 30} for n in range(8) for name in ("a", "b", None)
    ]
    async with Client(redis_url) as pool:
        await add_adapters(redis, "a", "b")
        odd = [
            await pool.submit("a", "x" * 300, max_new_tokens=5),
            await pool.submit("b", BROKEN, max_new_tokens=5),
            await pool.submit("a", "late", max_new_tokens=5, delay=0.3, deadline=0.1),
        ]
        waiting = await pool.submit("b", "never", delay=60)
        await waiting.cancel()
        handles = [*odd, waiting, *await pool.submit_many(asked)]
        with fake_worker(redis_url, "killed", slow, **options) as killed:
            await until(lambda: redis.hget("lp:{default/0}:held", "killed"))
            await asyncio.sleep(0.3)
            killed.signal(signal.SIGKILL)
        with fake_worker(redis_url, "drained", slow, grace_s=0.1, **options) as drained:
            await alive(redis, "drained")
            await until(lambda: redis.hget("lp:{default/0}:held", "drained"))
            assert drained.stop() == 0
        with fake_worker(redis_url, "last", slow, **options) as last:
            running = await pool.submit("a", "long", max_new_tokens=150)
            await until(lambda: _runs(running))
            await running.cancel()
            records = [await ended(handle) for handle in [*handles, running] if isinstance(handle, JobHandle)]
            assert last.stop() == 0
            stats = {ref: await pool.stats(ref) for ref in REFS}
    loads = {ref: counters.pop("loads", 0) for ref, counters in stats.items()}  # by workers, not by jobs
    assert (0, 2) <= (loads["_base"], min(loads["a@1"], loads["b@1"])) <= (0, 6)
    for ref in REFS:
        expected = recomputed([record for record in records if record["ref"] == ref])
        assert expected == {name: value for name, value in stats[ref].items() if value}
    seen = {name for counters in stats.values() for name, value in counters.items() if value}
    assert {
        "retried",
        "dead",
        "released",
        "reaped",
        "cancelled",
        "expired",
        "failed",
        "slot_hits",
        "slot_misses",
    } <= seen


async def _runs(handle: JobHandle) -> bool:
    return await handle.state() == JobState.RUNNING
