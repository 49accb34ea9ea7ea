"""ForkServer: fake workers as forks of one process that has imported already what they all import.

Started by a command of its own, a fake worker spends most of its time before it serves on imports, and the tests start
hundreds. A fork is handed to whoever asked for it: its parent, as if it had been started by a command. Linux only.
"""

from __future__ import annotations

import array
import ctypes
import gc
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

ROOT = Path(__file__).parents[1]
POLL_S = 0.005
_FD = array.array("i").itemsize
_ADOPT_ORPHANS = 36  # PR_SET_CHILD_SUBREAPER


class Fork:
    """A child of this process, with the part of subprocess.Popen's interface that tests of workers use."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.returncode: int | None = None

    def poll(self) -> int | None:
        if self.returncode is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            self.returncode = os.waitstatus_to_exitcode(status) if pid else None
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        give_up_at = None if timeout is None else time.monotonic() + timeout
        while (status := self.poll()) is None:
            if give_up_at is not None and time.monotonic() > give_up_at:
                raise subprocess.TimeoutExpired(f"fork {self.pid}", timeout or 0)
            time.sleep(POLL_S)
        return status

    def send_signal(self, number: signal.Signals) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


class ForkServer:
    """One a process that runs tests; ends with it."""

    def __init__(self) -> None:
        self._socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            command = [sys.executable, "-m", "tests.fork_server", str(theirs.fileno())]
            self._process = subprocess.Popen(command, cwd=ROOT, pass_fds=[theirs.fileno()])

    def fork(self, argument: str, log: BinaryIO, environment: Mapping[str, str]) -> Fork:
        """A fake worker (tests/fake_worker.py) that was given this argument and writes into that file."""
        request = json.dumps(
            {"argument": argument, "environment": {**os.environ, **environment}, "parent": os.getpid()}
        )
        ancillary = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [log.fileno()]))]
        _adopt_orphans(1)
        try:
            self._socket.sendmsg([request.encode()], ancillary)
            return Fork(int(self._socket.recv(100)))
        finally:
            _adopt_orphans(0)

    def close(self) -> None:
        self._socket.close()
        self._process.wait()


def _adopt_orphans(yes: int) -> None:
    ctypes.CDLL(None).prctl(_ADOPT_ORPHANS, yes, 0, 0, 0)


def serve(connection: socket.socket) -> dict[str, Any]:
    """Forks until nobody can ask any more. Returns in each fork, with what was asked; never in the server."""
    while True:
        data, ancillary, *_ = connection.recvmsg(1 << 20, socket.CMSG_LEN(_FD))
        if not data:
            os._exit(0)
        request: dict[str, Any] = json.loads(data)
        [log] = array.array("i", ancillary[0][2][:_FD])
        read, write = os.pipe()
        if between := os.fork():
            os.close(write)
            os.close(log)
            started = os.read(read, 100)
            os.close(read)
            os.waitpid(between, 0)  # its child is whose it is to be
            connection.send(started)
        elif pid := os.fork():
            os.write(write, str(pid).encode())
            os._exit(0)
        else:
            _become(request, connection, log, read, write)
            return request


def _become(request: Mapping[str, Any], connection: socket.socket, log: int, *others: int) -> None:
    """A process as its parent would have started it."""
    for number in (1, 2):
        os.dup2(log, number)
    for number in (log, *others):
        os.close(number)
    connection.close()
    os.environ.clear()
    os.environ.update(request["environment"])
    while os.getppid() != request["parent"]:
        time.sleep(POLL_S)


def main(number: str) -> int:
    from tests import fake_worker

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the tests; their end is this one's
    gc.freeze()
    request = serve(socket.socket(fileno=int(number)))
    signal.signal(signal.SIGINT, signal.default_int_handler)
    return fake_worker.main(request["argument"])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
