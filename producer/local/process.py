"""LocalProcess: a child process with its log in a file, which ends with whoever started it.

It runs in a session of its own, so that Ctrl-C reaches the parent alone, which decides in which order things end. If
the parent is killed outright, the kernel tells its children. Knows nothing of what is run.
"""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

GRACE_S = 15.0  # one that was told to stop gets this long before it is killed


class ProcessEnded(RuntimeError):
    """A process of the pool ended by itself; the message carries the end of its log."""


class LocalProcess:
    """A child process with its log in a file."""

    def __init__(self, name: str, command: Sequence[str], folder: Path, environment: Mapping[str, str] | None = None):
        self.name, self.log_path = name, folder / f"{name}.log"
        with self.log_path.open("wb") as log:
            self._process = subprocess.Popen(  # noqa: S603 - arguments are a list, programs are ours
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=environment,
                start_new_session=True,
                preexec_fn=_end_with_parent if sys.platform == "linux" else None,  # noqa: PLW1509  no threads here yet
            )

    @property
    def pid(self) -> int:
        return self._process.pid

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
    with tempfile.TemporaryDirectory(prefix="lorapool-") as folder:
        yield Path(folder)


def _end_with_parent() -> None:
    """In the child: SIGTERM when the thread that started us is gone, even by SIGKILL (prctl PR_SET_PDEATHSIG)."""
    ctypes.CDLL(None).prctl(1, signal.SIGTERM)
