"""Does the queue keep the engine busy? On workload W, the share of the time that a worker spends inside steps.

``python -m benchmarks.stepping --out FILE.json``: a real worker process on the real base model, behind a real server,
with several hundred jobs waiting. The worker's own heartbeat tells what it did; only the time counts in which a
backlog exists. What is found is added to FILE.json, as ``ours.stepping_share`` and ``stepping``.
"""

from __future__ import annotations

import asyncio
import json
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from benchmarks import hardware
from benchmarks.workload import prompt_of, write_adapters
from examples.base_model import prepare
from lorapool.producer.client.client import Client
from lorapool.producer.client.handle import JobHandle
from lorapool.producer.client.request import Request
from lorapool.producer.local.process import LocalProcess, scratch_folder
from lorapool.producer.local.server import embedded_server
from lorapool.producer.local.worker import OFFLINE, worker_process
from lorapool.shared.connection import PoolConnection
from lorapool.shared.queue.operator import OperatorQueue
from lorapool.shared.server.redis_client import connect
from lorapool.shared.server.settings import redis_settings

BEAT_S = 0.2
NO_LIMIT = 1_000_000
console = Console()


@dataclass(frozen=True)
class Options:
    """The sizes of one run; they go into the JSON as they are."""

    requests: int
    new_tokens: int
    adapters: int
    rank: int
    dtype: str
    max_batch: int


@dataclass(frozen=True)
class Beat:
    """What a heartbeat says: since when the worker has its device, how long of that inside steps, tokens drawn."""

    up_ms: int
    busy_ms: int
    decode_tokens: int


def main(
    out: Annotated[Path, typer.Option(help="Where the JSON goes.")],
    requests: Annotated[int, typer.Option(min=1, help="Jobs waiting at the start.")] = 384,
    new_tokens: Annotated[int, typer.Option(min=2, help="Tokens drawn for each.")] = 64,
    adapters: Annotated[int, typer.Option(min=1, help="Adapters that they ask for.")] = 16,
    rank: Annotated[int, typer.Option(min=1, help="Rank of each adapter.")] = 16,
    dtype: Annotated[str, typer.Option(help="The worker's dtype.")] = "bfloat16",
    max_batch: Annotated[int, typer.Option(min=1, help="Rows of one step.")] = 64,
) -> None:
    """Measure, print, write the JSON."""
    options = Options(requests, new_tokens, adapters, rank, dtype, max_batch)
    with ExitStack() as stack:
        folder = stack.enter_context(scratch_folder())
        stack.enter_context(console.status("stepping"))
        url, model = stack.enter_context(embedded_server(folder)), prepare()
        folders = write_adapters(model, folder, adapters, rank)
        worker = stack.enter_context(worker_process(_flags(options, url, model, folder), folder, environment=OFFLINE))
        measured = asyncio.run(_measure(url, worker, options, folders))
    share = measured["stepping_share"]
    console.print(
        f"{share:.2%} of {measured['seconds']:.1f} s with a backlog inside steps, {measured['tokens_s']:.0f} tokens/s"
    )
    _add(out, {"hardware": hardware.describe(), "options": asdict(options), **measured})


def _flags(options: Options, url: str, model: Path, root: Path) -> list[str]:
    flags = {
        "redis-url": url,
        "base-model": model,
        "worker-id": "w1",
        "adapter-root": root,
        "slots": options.adapters,
        "max-rank": options.rank,
        "dtype": options.dtype,
        "max-batch": options.max_batch,
        "max-model-len": 256,
        "beat": BEAT_S,
    }
    return [text for name, value in flags.items() for text in (f"--{name}", str(value))]


async def _measure(url: str, worker: LocalProcess, options: Options, folders: list[Path]) -> dict[str, Any]:
    connection = PoolConnection(connect(redis_settings(url)), "default")
    queue = OperatorQueue(connection.partition())
    async with Client(url) as client:
        while ["running"] != [beat["state"] for beat in await client.workers()]:
            worker.check()
            await asyncio.sleep(0.1)
        for number, folder in enumerate(folders):
            ref = (await client.adapters.register(f"adapter-{number}", folder)).ref
            await queue.open_adapter(ref, (await queue.adapter(ref))["digest"], agent_window=NO_LIMIT)
        answers = await client.submit_many(_requests(options))
        handles = [answer for answer in answers if isinstance(answer, JobHandle)]
        assert len(handles) == len(answers), "some jobs were refused"
        beats = await _beats_with_backlog(client, queue, worker)
        results = await client.gather(handles)
    await connection.aclose()
    if failed := [result for result in results if isinstance(result, Exception)]:
        raise failed[0]
    first, last = beats[0], beats[-1]
    seconds = (last.up_ms - first.up_ms) / 1000
    return {
        "stepping_share": (last.busy_ms - first.busy_ms) / 1000 / seconds,
        "seconds": seconds,
        "tokens_s": (last.decode_tokens - first.decode_tokens) / seconds,
    }


def _requests(options: Options) -> list[Request]:
    params = {"max_new_tokens": options.new_tokens, "min_new_tokens": options.new_tokens}
    return [
        Request(f"adapter-{number % options.adapters}", prompt_of(number), params=params)
        for number in range(options.requests)
    ]


async def _beats_with_backlog(client: Client, queue: OperatorQueue, worker: LocalProcess) -> list[Beat]:
    """One a beat, from the first that drew a token while jobs wait to the last with jobs still waiting."""
    beats: list[Beat] = []
    drawn = (await _beat(client)).decode_tokens
    while await queue.depths():
        worker.check()
        beat = await _beat(client)
        if beat.decode_tokens > drawn and await queue.depths():
            beats.append(beat)
        await asyncio.sleep(BEAT_S)
    return beats


async def _beat(client: Client) -> Beat:
    [worker] = await client.workers()
    return Beat(*(int(worker[name]) for name in ("up_ms", "busy_ms", "decode_tokens")))


def _add(out: Path, measured: dict[str, Any]) -> None:
    figures: dict[str, Any] = json.loads(out.read_text()) if out.exists() else {}
    figures["stepping"] = measured
    figures.setdefault("ours", {})["stepping_share"] = measured["stepping_share"]
    out.write_text(json.dumps(figures, indent=2) + "\n")


if __name__ == "__main__":
    typer.run(main)
