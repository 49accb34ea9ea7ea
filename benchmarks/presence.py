"""What do heartbeats cost the server? Its CPU time while a fleet of 256, 512 and 1,000 workers is there.

``python -m benchmarks.presence --out FILE.json``: each worker's own code beats (name, membership, the reading of peers)
with the fields of a busy worker, through as many connections as asked, at the default pace; no engine is behind it.
In a second run of each fleet, workers leave and come back all the time, which makes the others read names. The
server's time is INFO's, less what it takes when nobody is there.
"""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

import typer
from redis.asyncio import Redis
from rich.console import Console
from rich.table import Table

from benchmarks import hardware
from lorapool.producer.local.process import scratch_folder
from lorapool.producer.local.server import embedded_server
from lorapool.shared.connection import PoolConnection
from lorapool.shared.fleet.membership import RUNNING, Membership
from lorapool.shared.server.redis_client import connect
from lorapool.shared.server.settings import redis_settings
from lorapool.worker.config import WorkerConfig
from lorapool.worker.loop.heartbeat import COUNTED, stride
from lorapool.worker.loop.peers import BEATS_BETWEEN, Peers
from lorapool.worker.loop.presence import Presence

POOL = "default"
BEAT_S = WorkerConfig(worker_id="w", base_model="m").beat_s
RESIDENT = " ".join(f"adapter-{number}@1.0.0" for number in range(8))
ON_HOST = " ".join(f"adapter-{number}@1.0.0" for number in range(64))
console = Console()


@dataclass(frozen=True)
class Options:
    """One run; they go into the JSON as they are."""

    seconds: float
    connections: int
    churn_per_s: float


class FleetMember:
    """One worker as far as presence goes: joins, beats, heeds who else is there, leaves."""

    def __init__(self, members: Membership, name: str) -> None:
        self._presence = Presence(members, name, every_s=BEAT_S)
        self._peers = Peers(members.serving, lambda _: None, every_s=BEAT_S)
        self._beats = 0

    async def join(self) -> None:
        await self._presence.join()

    async def leave(self) -> None:
        await self._presence.leave()

    async def beat(self) -> None:
        self._beats += 1
        self._presence.stride = stride(self._peers.count)
        await self._peers.heed(await self._presence.beat(self._fields(), COUNTED))

    def _fields(self) -> dict[str, str | int | float]:
        """As a busy worker's: identity, state, residency, totals that grow."""
        return {
            "version": "0.1.0", "model_load_ms": 21_000, "base_model": "HuggingFaceTB/SmolLM2-135M-Instruct",
            "device": "cuda:0", "hardware": "NVIDIA H100 80GB HBM3", "dtype": "bfloat16", "slots": 8, "max_rank": 64,
            "slot_bytes": 26_542_080, "kv_cache_bytes": 42_949_672_960, "max_batch": 64, "max_model_len": 8192,
            "state": RUNNING, "held": 80, "free_rows": 0, "tokens_per_s": 2100.5, "step_age_ms": 12,
            "resident": RESIDENT[self._beats % 3 :], "loading": "", "on_host": ON_HOST, "joins": 7 * self._beats,
            "failed_steps": 0,
            "preemptions": 0, **{f"mixed_steps_{n}": n * self._beats for n in range(1, 9)},
            **dict.fromkeys(COUNTED, 1000 * self._beats),
        }  # fmt: skip


def main(
    out: Annotated[Path, typer.Option(help="Where the JSON goes.")],
    workers: Annotated[list[int] | None, typer.Option(help="Sizes of the fleet; repeatable.")] = None,
    seconds: Annotated[float, typer.Option(min=1, help="How long each fleet is looked at.")] = 20.0,
    connections: Annotated[int, typer.Option(min=2, help="Connections that the fleet shares.")] = 32,
    churn_per_s: Annotated[float, typer.Option(min=0, help="Workers that leave and come, in the second run.")] = 2.0,
) -> None:
    """Measure, print, write the JSON."""
    options = Options(seconds, connections, churn_per_s)
    with scratch_folder() as folder, embedded_server(folder) as url:
        measured = asyncio.run(_measure(url, workers or [256, 512, 1000], options))
    table = Table("workers", "churn a second", "beats/s", "server µs a beat", "% of a server core", box=None)
    for row in measured:
        table.add_row(*(f"{row[name]:g}" for name in ("workers", "churn_per_s", "beats_s", "us_beat", "core_percent")))
    console.print(table)
    facts = {"hardware": hardware.describe(), "options": asdict(options), "beat_s": BEAT_S}
    out.write_text(json.dumps({**facts, "presence": measured}, indent=2) + "\n")


async def _measure(url: str, sizes: Sequence[int], options: Options) -> list[dict[str, float]]:
    admin = Redis.from_url(url)
    idle_us_s = await _idle(admin, options.seconds)
    rows = []
    for size in sizes:
        for churn_per_s in (0.0, options.churn_per_s):
            with console.status(f"{size} workers, {churn_per_s:g} of them leave and come a second"):
                await admin.flushall()
                async with _fleet(url, size, options.connections, churn_per_s) as beats:
                    await asyncio.sleep(BEATS_BETWEEN[1] * BEAT_S + BEAT_S)  # all have met
                    rows.append(await _look(admin, beats, size, churn_per_s, idle_us_s, options.seconds))
    await admin.aclose()
    return rows


@asynccontextmanager
async def _fleet(url: str, size: int, connections: int, churn_per_s: float) -> AsyncIterator[list[int]]:
    """That many workers at work; yields the number of beats so far, in a list."""
    settings = redis_settings(url, POOL).model_copy(update={"max_connections": connections})
    connection, beats = PoolConnection(connect(settings), POOL), [0]
    membership = Membership(connection)
    members = [FleetMember(membership, f"worker-{number}") for number in range(size)]
    await asyncio.gather(*(member.join() for member in members))
    tasks = [asyncio.create_task(_beating(member, beats)) for member in members]
    if churn_per_s:
        tasks.append(asyncio.create_task(_churning(members, churn_per_s)))
    yield beats
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    await connection.aclose()


async def _beating(member: FleetMember, beats: list[int]) -> None:
    await asyncio.sleep(random.uniform(0, BEAT_S))
    while True:
        began = time.monotonic()
        await member.beat()
        beats[0] += 1
        await asyncio.sleep(max(0.0, BEAT_S - (time.monotonic() - began)))


async def _churning(members: Sequence[FleetMember], per_s: float) -> None:
    while True:
        await asyncio.sleep(1 / per_s)
        member = random.choice(members)
        await member.leave()
        await member.join()


async def _look(
    admin: Redis, beats: list[int], workers: int, churn_per_s: float, idle_us_s: float, seconds: float
) -> dict[str, float]:
    before_us, before, began = await _cpu_us(admin), beats[0], time.monotonic()
    await asyncio.sleep(seconds)
    used_us, counted, took_s = await _cpu_us(admin) - before_us, beats[0] - before, time.monotonic() - began
    us_beat = (used_us - idle_us_s * took_s) / counted
    return {
        "workers": workers,
        "churn_per_s": churn_per_s,
        "beats_s": round(counted / took_s, 1),
        "us_beat": round(us_beat, 1),
        "core_percent": round(100 * us_beat * workers / BEAT_S / 1e6, 2),  # at the full pace, had it been missed
    }


async def _idle(admin: Redis, seconds: float) -> float:
    """What the server takes for itself, µs a second."""
    before_us = await _cpu_us(admin)
    await asyncio.sleep(min(seconds, 5.0))
    return (await _cpu_us(admin) - before_us) / min(seconds, 5.0)


async def _cpu_us(admin: Redis) -> float:
    used: dict[str, Any] = await admin.info("cpu")
    return float(used["used_cpu_user"] + used["used_cpu_sys"]) * 1e6


if __name__ == "__main__":
    typer.run(main)
