"""How much of the engine's speed arrives through client, server and worker? Workload W both ways, in turn, by ratio.

``python -m benchmarks.through --out FILE.json``: a real worker process behind a real server is asked by a real client
with all requests at once, until the last answer is there; between its rounds the same engine runs the same requests in
this process, with nothing around it. Both hold their adapters in slots before the clock starts.
"""

from __future__ import annotations

import asyncio
import json
import time
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from benchmarks import hardware, rounds
from benchmarks.ours import Ours
from benchmarks.workload import Workload, build, prompt_of
from examples.base_model import prepare
from lorapool.producer.client.client import Client
from lorapool.producer.client.request import Request
from lorapool.producer.local.process import LocalProcess, scratch_folder
from lorapool.producer.local.server import embedded_server
from lorapool.producer.local.worker import OFFLINE, worker_process
from lorapool.shared.connection import PoolConnection
from lorapool.shared.job import Result
from lorapool.shared.queue.operator import OperatorQueue
from lorapool.shared.server.redis_client import connect
from lorapool.shared.server.settings import redis_settings

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
    rounds: int


def main(
    out: Annotated[Path, typer.Option(help="Where the JSON goes.")],
    requests: Annotated[int, typer.Option(min=1, help="Requests at once.")] = 64,
    new_tokens: Annotated[int, typer.Option(min=2, help="Tokens drawn for each.")] = 64,
    adapters: Annotated[int, typer.Option(min=0, help="Adapters that they ask for; 0 is the base model.")] = 16,
    rank: Annotated[int, typer.Option(min=1, help="Rank of each adapter.")] = 16,
    dtype: Annotated[str, typer.Option(help="The engines' dtype.")] = "bfloat16",
    rounds_: Annotated[int, typer.Option("--rounds", min=1, help="Turns of each.")] = 5,
) -> None:
    """Measure, print, write the JSON."""
    options = Options(requests, new_tokens, adapters, rank, dtype, rounds_)
    with ExitStack() as stack:
        folder = stack.enter_context(scratch_folder())
        url, model = stack.enter_context(embedded_server(folder)), prepare()
        workload = build(model, folder, requests=requests, new_tokens=new_tokens, adapters=adapters, rank=rank)
        worker = stack.enter_context(worker_process(_flags(options, url, model, folder), folder, environment=OFFLINE))
        loop = asyncio.new_event_loop()
        stack.callback(loop.close)
        asked = _Asked(url, workload)
        loop.run_until_complete(asked.open(worker))
        engine = Ours(workload, dtype, rank)
        measured = rounds.run(
            {
                "the engine alone": rounds.Entry(lambda: workload.tokens / engine.run(adapters)[0], rounds_),
                "through the pool": rounds.Entry(
                    lambda: workload.tokens / loop.run_until_complete(asked.run()), rounds_
                ),
            }
        )
        loop.run_until_complete(asked.close())
    alone, through = (rounds.summarize(values) for values in measured.values())
    shares = [b / a for a, b in zip(alone.values, through.values, strict=True)]
    share = rounds.summarize(shares)
    console.print(f"alone {alone} tokens/s, through the pool {through}: {share.median:.2f} "
                  f"({share.low:.2f} to {share.high:.2f}) of it, round by round")  # fmt: skip
    figures = {"alone": asdict(alone), "through": asdict(through), "share": asdict(share)}
    out.write_text(
        json.dumps({"hardware": hardware.describe(), "options": asdict(options), **figures}, indent=2) + "\n"
    )


class _Asked:
    """A client of the pool."""

    def __init__(self, url: str, workload: Workload) -> None:
        self._url, self._workload = url, workload

    async def open(self, worker: LocalProcess) -> None:
        """Wait for the worker, and register the adapters with it."""
        self._client = await Client(self._url).__aenter__()
        while not any(beat.get("state") == "running" for beat in await self._client.workers()):
            worker.check()
            await asyncio.sleep(0.1)
        connection = PoolConnection(connect(redis_settings(self._url)), "default")
        queue = OperatorQueue(connection.partition())
        for number, folder in enumerate(self._workload.adapters):
            ref = (await self._client.adapters.register(f"adapter-{number}", folder)).ref
            await queue.open_adapter(ref, (await queue.adapter(ref))["digest"], agent_window=NO_LIMIT)
        await connection.aclose()

    async def close(self) -> None:
        await self._client.close()

    async def run(self) -> float:
        """Seconds until all requests are answered."""
        requests = [self._request(number) for number in range(len(self._workload.prompts))]
        began = time.perf_counter()
        results: list[Any] = await self._client.gather(requests, timeout=600)
        seconds = time.perf_counter() - began
        for result in results:
            if not isinstance(result, Result):
                raise rounds.Failed(str(result))
        return seconds

    def _request(self, number: int) -> Request:
        adapter = self._workload.adapter_of(number, len(self._workload.adapters))
        count = self._workload.new_tokens
        params = {"max_new_tokens": count, "min_new_tokens": count}
        return Request(None if adapter is None else f"adapter-{adapter}", prompt_of(number), params=params)


def _flags(options: Options, url: str, model: Path, root: Path) -> list[str]:
    flags = {
        "redis-url": url,
        "base-model": model,
        "worker-id": "w1",
        "adapter-root": root,
        "slots": max(1, options.adapters),
        "max-rank": options.rank,
        "dtype": options.dtype,
        "max-batch": options.requests,
        "max-model-len": 256,
    }
    return [text for name, value in flags.items() for text in (f"--{name}", str(value))]


if __name__ == "__main__":
    typer.run(main)
