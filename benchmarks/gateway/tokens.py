"""Workload W through HTTP and by the Python client, in turn: the same worker on the real model, the same requests."""

from __future__ import annotations

import asyncio
import json
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks import rounds
from benchmarks.gateway.doors import gateway
from benchmarks.gateway.measure import chat_volley
from benchmarks.through import Options, _Asked, _flags
from benchmarks.workload import Workload, build, prompt_of
from examples.base_model import prepare
from lorapool.producer.local.server import embedded_server
from lorapool.producer.local.worker import OFFLINE, worker_process

ADAPTERS, RANK = 16, 16


def run(folder: Path, *, turns: int, dtype: str, requests: int, new_tokens: int) -> dict[str, Any]:
    """Tokens a second of each, and the share that arrives over HTTP, round by round."""
    options = Options(requests, new_tokens, ADAPTERS, RANK, dtype, turns)
    with ExitStack() as stack:
        url, model = stack.enter_context(embedded_server(folder)), prepare()
        workload = build(model, folder, requests=requests, new_tokens=new_tokens, adapters=ADAPTERS, rank=RANK)
        worker = stack.enter_context(worker_process(_flags(options, url, model, folder), folder, environment=OFFLINE))
        loop = asyncio.new_event_loop()
        stack.callback(loop.close)
        asked = _Asked(url, workload)
        loop.run_until_complete(asked.open(worker))
        address, _ = stack.enter_context(gateway(folder, url))
        bodies = [_body(workload, number) for number in range(requests)]
        measured = rounds.run(
            {
                "client": rounds.Entry(lambda: workload.tokens / loop.run_until_complete(asked.run()), turns),
                "gateway": rounds.Entry(
                    lambda: workload.tokens / loop.run_until_complete(chat_volley(address, bodies)), turns
                ),
            }
        )
        loop.run_until_complete(asked.close())
    shares = [over / under for under, over in zip(measured["client"], measured["gateway"], strict=True)]
    return {name: asdict(rounds.summarize(values)) for name, values in {**measured, "share": shares}.items()}


def _body(workload: Workload, number: int) -> str:
    adapter = workload.adapter_of(number, ADAPTERS)
    count = workload.new_tokens
    fields = {"model": f"adapter-{adapter}", "prompt": prompt_of(number), "max_tokens": count, "temperature": 0}
    return json.dumps({**fields, "min_tokens": count})
