"""Child processes that speak in JSON lines; none outlives its context, however that ends."""

from __future__ import annotations

import json
import queue
import signal
import subprocess
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
STOP_S = 10.0
LOOK_S = 0.5


class ProcessFailed(RuntimeError):
    """A process ended, or fell silent, without saying what was asked of it."""


class Talker:
    """A running process; ``hear`` waits for the next line that has the key."""

    def __init__(self, command: Sequence[str]) -> None:
        self._command = command
        self._process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=ROOT, text=True
        )
        self._lines: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        self._errors: list[str] = []
        self._readers = [threading.Thread(target=read, daemon=True) for read in (self._read_lines, self._read_errors)]
        for reader in self._readers:
            reader.start()

    def hear(self, key: str, timeout_s: float = 60.0, beside: Sequence[Talker] = ()) -> dict[str, Any]:
        """The next JSON line that has ``key``.

        Raises ProcessFailed, with the end of its error output, if it ends or falls silent; or if one ``beside`` ends.
        """
        give_up_at = time.monotonic() + timeout_s
        while time.monotonic() < give_up_at:
            try:
                line = self._lines.get(timeout=LOOK_S)
            except queue.Empty:
                for other in beside:
                    other.check()
                continue
            if line is None:
                raise ProcessFailed(self._complaint(f"ended with status {self._process.wait()}"))
            if line.startswith("{") and key in (facts := json.loads(line)):
                assert isinstance(facts, dict)
                return facts
        raise ProcessFailed(self._complaint(f"did not say {key!r} within {timeout_s:g} s"))

    def check(self) -> None:
        """Raises ProcessFailed if it has ended."""
        if (status := self._process.poll()) is not None:
            raise ProcessFailed(self._complaint(f"ended with status {status}"))

    def ask_to_stop(self) -> None:
        """SIGTERM."""
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)

    def freeze(self) -> None:
        """SIGSTOP."""
        self._process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """SIGCONT."""
        self._process.send_signal(signal.SIGCONT)

    def end(self, grace_s: float = STOP_S) -> None:
        """SIGTERM, then SIGKILL."""
        self.ask_to_stop()
        try:
            self._process.wait(grace_s)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        for reader in self._readers:
            reader.join()
        for pipe in (self._process.stdout, self._process.stderr):
            assert pipe is not None
            pipe.close()

    def _complaint(self, what: str) -> str:
        return f"{' '.join(map(str, self._command))} {what}:\n{''.join(self._errors[-12:])}"

    def _read_lines(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._lines.put(line)
        self._lines.put(None)

    def _read_errors(self) -> None:
        assert self._process.stderr is not None
        self._errors.extend(self._process.stderr)


@contextmanager
def talking(python: str, module: str, role: str, grace_s: float = STOP_S, **options: Any) -> Iterator[Talker]:
    """``python -m module role --option value …``, ended with the context."""
    talker = Talker([python, "-m", module, role, *_flags(options)])
    try:
        yield talker
    finally:
        talker.end(grace_s)


def ask(python: str, module: str, role: str, key: str, **options: Any) -> dict[str, Any]:
    """Run a role to its end and return the line that has ``key``."""
    with talking(python, module, role, **options) as talker:
        return talker.hear(key)


def _flags(options: Mapping[str, Any]) -> list[str]:
    return [text for name, value in options.items() for text in (f"--{name.replace('_', '-')}", str(value))]
