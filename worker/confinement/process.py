"""ConfinedProcess: a program of ours that reads what strangers wrote, in a process that a hostile text cannot outgrow.

One request at a time, as a line of JSON, and one answer; the process bounds its own time and memory (limits.py),
and is started when first needed and again after it has ended. It sees no variable of the worker's, so no password.
Knows nothing of what is asked.
"""

from __future__ import annotations

import json
import os
import selectors
import signal
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Callable, Mapping
from typing import Any

from lorapool.shared.errors import LorapoolError

END_S = 5.0  # for a killed process to be gone
START_S = 120.0  # to import its libraries, on a busy machine
_KEPT = ("PATH", "LANG", "LC_ALL", "HOME", "VIRTUAL_ENV", "PYTHONPATH", "LD_LIBRARY_PATH")  # no LORAPOOL_*: passwords
_ONE_THREAD = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
_CHUNK_BYTES = 1 << 16


class ProcessEnded(LorapoolError):
    """It ended instead of answering: what it read took too long, too much memory, or killed it."""


class NoAnswer(LorapoolError):
    """It neither answered nor used up its time: whatever it waits for is not its text's fault."""


class ConfinedProcess:
    """``python -m module argument…``, given ``setup`` once it runs. Safe to call from several threads: one at a time.

    ``timeout_s``: of wall-clock time, for one answer; longer than the time of its own that the process may take.
    """

    def __init__(
        self, module: str, *arguments: str, timeout_s: float, setup: Callable[[], Mapping[str, Any]] | None = None
    ) -> None:
        self._command = [sys.executable, "-m", module, *arguments]
        self._timeout_s, self._setup = timeout_s, setup
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._read = bytearray()  # what it wrote past the line that was taken

    def ask(self, request: Mapping[str, Any], on_progress: Callable[[str], None] = lambda _: None) -> dict[str, Any]:
        """Its answer; ``on_progress`` hears what it does meanwhile. Raises ProcessEnded, NoAnswer."""
        with self._lock:
            return self._exchange(self._running(), request, self._timeout_s, on_progress)

    def warm(self) -> None:
        """Start it, if it does not run. Raises NoAnswer, ProcessEnded."""
        with self._lock:
            self._running()

    def close(self) -> None:
        """End it, in the middle of whatever it does."""
        process, self._process = self._process, None
        if process is not None:
            _end(process)

    @property
    def pid(self) -> int | None:
        """While it runs."""
        return None if self._process is None or self._process.poll() is not None else self._process.pid

    def _running(self) -> subprocess.Popen[bytes]:
        if self.pid is None or self._process is None:
            self._process = process = subprocess.Popen(  # noqa: S603  our own module
                self._command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                env={**{name: os.environ[name] for name in _KEPT if name in os.environ}, **_ONE_THREAD},
                start_new_session=True,  # Ctrl-C is the worker's
            )
            weakref.finalize(self, _end, process)
            self._read.clear()
            try:
                self._exchange(process, self._setup() if self._setup else {}, START_S, lambda _: None)
            except ProcessEnded as error:  # nothing of a stranger's was read yet
                raise NoAnswer(f"{self._command[2]} does not start here: {error}") from None
        return self._process

    def _exchange(
        self,
        process: subprocess.Popen[bytes],
        request: Mapping[str, Any],
        timeout_s: float,
        on_progress: Callable[[str], None],
    ) -> dict[str, Any]:
        until_s = time.monotonic() + timeout_s
        line, doing = json.dumps(request).encode() + b"\n", ""
        try:
            _write(process, line, until_s)
            while True:
                message: dict[str, Any] = json.loads(_read_line(process, self._read, until_s))
                if "doing" not in message:
                    return message
                on_progress(doing := str(message["doing"]))
        except TimeoutError:
            self._drop(process)
            raise NoAnswer(f"no answer within {timeout_s:g} s{_during(doing)}") from None
        except (EOFError, OSError, ValueError):  # ValueError: half a line
            status = self._drop(process)
            raise ProcessEnded(f"{_death(status)}{_during(doing)}") from None

    def _drop(self, process: subprocess.Popen[bytes]) -> int:
        """Forget it; its exit status, if it has ended by itself."""
        self._process = None
        try:
            process.wait(1.0)
        except subprocess.TimeoutExpired:
            status = -signal.SIGKILL
        else:
            status = process.returncode
        _end(process)
        return status


def _write(process: subprocess.Popen[bytes], line: bytes, until_s: float) -> None:
    assert process.stdin is not None
    descriptor = process.stdin.fileno()
    os.set_blocking(descriptor, False)
    rest = memoryview(line)
    while rest:
        _wait(descriptor, selectors.EVENT_WRITE, until_s)
        rest = rest[os.write(descriptor, rest[:_CHUNK_BYTES]) :]


def _read_line(process: subprocess.Popen[bytes], read: bytearray, until_s: float) -> bytes:
    """The next line, what follows being left in ``read``."""
    assert process.stdout is not None
    descriptor, at = process.stdout.fileno(), read.find(b"\n")
    while at < 0:
        _wait(descriptor, selectors.EVENT_READ, until_s)
        piece = os.read(descriptor, _CHUNK_BYTES)
        if not piece:
            raise EOFError
        end = piece.find(b"\n")
        at = -1 if end < 0 else len(read) + end
        read += piece
    line = bytes(read[: at + 1])
    del read[: at + 1]
    return line


def _wait(descriptor: int, event: int, until_s: float) -> None:
    with selectors.DefaultSelector() as selector:
        selector.register(descriptor, event)
        if not selector.select(max(0.0, until_s - time.monotonic())):
            raise TimeoutError


def _death(status: int) -> str:
    if status in {-signal.SIGPROF, -signal.SIGXCPU}:
        return "stopped: it took too long"
    if status < 0:
        return f"killed by signal {-status} ({signal.Signals(-status).name})"
    return f"ended with status {status}"


def _during(doing: str) -> str:
    return f", at {doing}" if doing else ""


def _end(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    try:
        process.wait(END_S)
    except subprocess.TimeoutExpired:
        return  # it hangs in the kernel, on storage that is gone; it ends when that comes back
    for pipe in (process.stdin, process.stdout):
        if pipe is not None and not pipe.closed:
            try:
                pipe.close()
            except OSError:
                continue  # what was not yet written to a dead process
