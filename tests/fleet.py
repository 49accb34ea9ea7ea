"""Worker processes under test, and adapters for fake ones."""

from __future__ import annotations

import asyncio
import atexit
import functools
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any, BinaryIO, TypeAlias

from redis.asyncio import Redis

from lorapool.shared.catalog.catalog import AdapterRecord
from tests.fork_server import Fork, ForkServer
from tests.parts import catalog_of, membership_of

ROOT = Path(__file__).parents[1]
CEILING_S = 120.0  # for what takes a second or two where nothing else runs
Process: TypeAlias = subprocess.Popen[bytes] | Fork
Start: TypeAlias = Callable[[BinaryIO], Process]  # with the file for its log


@dataclass
class WorkerProcess:
    """One process and its log."""

    process: Process
    log_path: Path
    name: str

    def signal(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def wait(self, timeout_s: float = CEILING_S) -> int:
        return self.process.wait(timeout_s)

    def stop(self, timeout_s: float = CEILING_S) -> int:
        """SIGTERM and wait; the exit status."""
        self.signal(signal.SIGTERM)
        return self.wait(timeout_s)

    def log(self) -> str:
        return self.log_path.read_text()

    def events(self, name: str) -> list[dict[str, Any]]:
        """The log lines of that event."""
        lines = (json.loads(line) for line in self.log().splitlines() if line.startswith("{"))
        return [line for line in lines if line.get("event") == name]


@contextmanager
def started(command: list[str], name: str, environment: Mapping[str, str] | None = None) -> Iterator[WorkerProcess]:
    """The command's process, killed at the end if it still runs."""

    def start(log: BinaryIO) -> subprocess.Popen[bytes]:
        return subprocess.Popen(command, stdout=log, stderr=log, cwd=ROOT, env={**os.environ, **(environment or {})})

    with _kept(start, name) as worker:
        yield worker


@contextmanager
def _kept(start: Start, name: str) -> Iterator[WorkerProcess]:
    with tempfile.TemporaryDirectory(prefix="lorapool-worker-") as folder:
        log_path = Path(folder, "log")
        with log_path.open("wb") as log:
            process = start(log)
        worker = WorkerProcess(process, log_path, name)
        try:
            yield worker
        except BaseException:
            print(f"--- the end of {name}'s log\n{worker.log()[-4000:]}")
            raise
        finally:
            if process.poll() is None:
                process.send_signal(signal.SIGCONT)
                process.kill()
            process.wait()


@contextmanager
def fake_worker(
    redis_url: str,
    name: str = "w1",
    model: Mapping[str, Any] | None = None,
    environment: Mapping[str, str] | None = None,
    **config: Any,
) -> Iterator[WorkerProcess]:
    """A worker process over the fake runner."""
    config = {"worker_id": name, "beat_s": 0.3, "slots": 4, "max_batch": 8} | config
    argument = json.dumps({"redis_url": redis_url, "worker": config, "model": dict(model or {})})
    with _kept(lambda log: _fork_server().worker(argument, log, environment or {}), name) as worker:
        yield worker


@functools.cache
def _fork_server() -> ForkServer:
    """This process's, until it ends."""
    server = ForkServer()
    atexit.register(server.close)
    return server


@contextmanager
def real_worker(
    redis_url: str, *flags: str, name: str = "w1", base_model: Path, threads: int = 2
) -> Iterator[WorkerProcess]:
    """``lorapool-worker run`` with a real model in float32; its idle threads leave the cores to others."""
    environment = {"OMP_NUM_THREADS": str(threads), "OMP_WAIT_POLICY": "PASSIVE"}
    program = str(Path(sys.executable).parent / "lorapool-worker")
    command = [program, "run", "--redis-url", redis_url, "--worker-id", name, "--base-model", str(base_model)]
    with started([*command, "--dtype", "float32", "--beat", "0.2", *flags], name, environment) as worker:
        yield worker


async def until(condition: Callable[[], Any], timeout_s: float = CEILING_S, every_s: float = 0.01) -> Any:
    """Ask again and again until the answer (awaited, if it can be) is true; returns it."""
    give_up_at = asyncio.get_running_loop().time() + timeout_s
    while asyncio.get_running_loop().time() < give_up_at:
        answer = condition()
        if asyncio.iscoroutine(answer):
            answer = await answer
        if answer:
            return answer
        await asyncio.sleep(every_s)
    raise AssertionError(f"not within {timeout_s} s")


async def alive(redis: Redis, name: str, pool: str = "default", timeout_s: float = CEILING_S) -> dict[str, str]:
    """The worker's heartbeat, once it serves."""
    members = membership_of(redis, pool)

    async def beat() -> dict[str, str] | None:
        beats = (beat for beat in await members.all() if beat.get("state") != "loading")
        return next((found for found in beats if found["worker"] == name), None)

    return dict(await until(beat, timeout_s))


async def add_adapters(redis: Redis, *names: str, pool: str = "default") -> dict[str, str]:
    """Adapters that only fake workers can serve, ready at once; ref -> digest."""
    catalog, digests = catalog_of(redis, pool), {}
    for name in names:
        digest = sha256(name.encode()).hexdigest()
        await catalog.register(AdapterRecord(id=name, version="1", digest=digest, uri=f"file:///{name}"))
        await catalog.decide(f"{name}@1", "ready")
        digests[f"{name}@1"] = digest
    return digests
