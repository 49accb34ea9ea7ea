"""LocalWorkers: ``lorapool-worker`` subprocesses that a facade starts for itself and stops again.

They are programs, never imports: an agent's process loads no torch. They serve whoever uses the pool while they live;
Redis and what runs elsewhere are not touched. Secrets go through the environment, not the command line.
"""

from __future__ import annotations

import asyncio
import atexit
import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from lorapool.producer.aos.config import LoRAxConfig
from lorapool.shared.errors import InvalidRequest, NoWorker
from lorapool.shared.redaction import redact
from lorapool.shared.server.settings import redis_settings

_LAST_LINES = 8


@dataclass
class _Worker:
    name: str
    process: subprocess.Popen[bytes]
    log_path: Path


class LocalWorkers:
    """Those of one facade; none before ``start``."""

    def __init__(self, config: LoRAxConfig) -> None:
        self._config = config
        self._workers: list[_Worker] = []
        self._folder: tempfile.TemporaryDirectory[str] | None = None

    @property
    def names(self) -> frozenset[str]:
        return frozenset(worker.name for worker in self._workers)

    def start(self) -> None:
        """Start as many as are configured; they take a while to serve. Raises InvalidRequest, NoWorker."""
        if self._workers or not self._config.spawn_local:
            return
        program = self._program()
        self._folder = tempfile.TemporaryDirectory(prefix="lorapool-aos-")
        atexit.register(self.kill)
        for _ in range(self._config.spawn_local):
            self._spawn(program, Path(self._folder.name))

    def check(self) -> None:
        """Raise NoWorker with the last words of one that has ended by itself."""
        for worker in self._workers:
            status = worker.process.poll()
            if status is not None:
                raise NoWorker(f"local worker {worker.name} ended with status {status}: {_last_words(worker)}")

    async def stop(self, timeout_s: float) -> int:
        """Have them finish what runs and give back the rest, then end; how many had to be killed."""
        for worker in self._workers:
            if worker.process.poll() is None:
                worker.process.send_signal(signal.SIGTERM)
        ended = await asyncio.gather(*(asyncio.to_thread(_waited, worker, timeout_s) for worker in self._workers))
        self.kill()
        return ended.count(False)

    def kill(self) -> None:
        """End what still runs, at once, and forget them."""
        atexit.unregister(self.kill)
        for worker in self._workers:
            if worker.process.poll() is None:
                worker.process.kill()
            worker.process.wait()
        self._workers = []
        if self._folder is not None:
            self._folder.cleanup()
            self._folder = None

    def _program(self) -> list[str]:
        name, *arguments = self._config.worker_command
        beside = Path(sys.executable).parent / name  # the environment's own, whatever PATH says
        path = str(beside) if "/" not in name and beside.is_file() else shutil.which(name)
        if path is None:
            raise InvalidRequest(
                f"worker_command = {name!r}: no such program; local workers need: pip install 'lorapool[worker]'"
            )
        return [path, *arguments]

    def _spawn(self, program: Sequence[str], folder: Path) -> None:
        name = f"aos-{os.getpid()}-{secrets.token_hex(3)}"
        settings = redis_settings(self._config.redis_url, self._config.pool)
        flags = ["--worker-id", name, "--pool", settings.pool, "--grace", f"{self._config.drain_timeout_s:g}"]
        remote = self._config.remote_base
        local = str(Path(self._config.adapter_base_path).expanduser().resolve())
        roots = ["--adapter-root", local] if remote is None else ["--adapter-source", remote]
        environment = {**os.environ, "LORAPOOL_REDIS_URL": settings.redis_url.get_secret_value()}
        log_path = folder / f"{name}.log"
        with log_path.open("wb") as log:
            process = subprocess.Popen(  # noqa: S603 - the program is the operator's choice, arguments are a list
                [*program, "run", *flags, *roots, *self._config.worker_flags()],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=environment,
                start_new_session=True,  # Ctrl-C reaches the facade alone, which stops them in order
            )
        self._workers.append(_Worker(name, process, log_path))


def _waited(worker: _Worker, timeout_s: float) -> bool:
    with suppress(subprocess.TimeoutExpired):
        worker.process.wait(timeout_s)
    return worker.process.poll() is not None


def _last_words(worker: _Worker) -> str:
    lines = worker.log_path.read_text(errors="replace").splitlines()
    return redact(" / ".join(line.strip() for line in lines[-_LAST_LINES:])) or "it said nothing"
