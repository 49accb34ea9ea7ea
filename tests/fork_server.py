"""Fake workers and their engines as forks of one process that has imported already what they all import.

Started by a command of its own, a fake worker spends most of its time before it serves on imports, and so does its
engine; the tests start hundreds. A fork is handed to whoever asked for it: its parent, as if it had been started by a
command. Linux only.
"""

from __future__ import annotations

import array
import ctypes
import gc
import importlib
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
ENGINES_IMPORT = ("lorapool.worker.engine_process.child", "tests.fake_model")
POLL_S = 0.005
REQUEST_BYTES = 1 << 20
_FD = array.array("i").itemsize
_ADOPT_ORPHANS = 36  # PR_SET_CHILD_SUBREAPER


class Fork:
    """A child of this process, with the part of subprocess.Popen's interface that tests and workers use."""

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
        self._socket, theirs = _pair()
        with theirs:
            command = [sys.executable, "-m", "tests.fork_server", str(theirs.fileno())]
            self._process = subprocess.Popen(command, cwd=ROOT, pass_fds=[theirs.fileno()])

    def worker(self, argument: str, log: BinaryIO, environment: Mapping[str, str]) -> Fork:
        """A fake worker (tests/fake_worker.py) that was given this argument and writes into that file."""
        return _fork(self._socket, {"argument": argument, "environment": {**os.environ, **environment}}, log.fileno())

    def close(self) -> None:
        self._socket.close()
        self._process.wait()


class EngineForks:
    """Of a fake worker's process, made before it does anything: where its engines come from."""

    def __init__(self) -> None:
        self._socket, theirs = _pair()
        if os.fork():
            theirs.close()
            return
        self._socket.close()
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        request, descriptors = serve(theirs)
        os.setsid()
        os._exit(_engine(*descriptors, request["parent"]))

    def engine(self, socket_fd: int, board_fd: int) -> Fork:
        """As worker/engine_process/spawned.py starts one by a command."""
        return _fork(self._socket, {}, socket_fd, board_fd)


def _pair() -> tuple[socket.socket, socket.socket]:
    return socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)


def _fork(server: socket.socket, request: Mapping[str, Any], *descriptors: int) -> Fork:
    ancillary = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", descriptors))]
    _adopt_orphans(1)
    try:
        server.sendmsg([json.dumps({**request, "parent": os.getpid()}).encode()], ancillary)
        return Fork(int(server.recv(100)))
    finally:
        _adopt_orphans(0)


def _adopt_orphans(yes: int) -> None:
    ctypes.CDLL(None).prctl(_ADOPT_ORPHANS, yes, 0, 0, 0)


def serve(connection: socket.socket) -> tuple[dict[str, Any], list[int]]:
    """Forks until nobody can ask any more. Returns in each fork, with what was asked and its descriptors; never in the
    server."""
    while True:
        data, ancillary, *_ = connection.recvmsg(REQUEST_BYTES, socket.CMSG_LEN(2 * _FD))
        if not data:
            os._exit(0)
        request: dict[str, Any] = json.loads(data)
        descriptors = list(array.array("i", ancillary[0][2]))
        read, write = os.pipe()
        if between := os.fork():
            for number in (write, *descriptors):
                os.close(number)
            started = os.read(read, 100)
            os.close(read)
            os.waitpid(between, 0)  # its child is whose it is to be
            connection.send(started)
        elif pid := os.fork():
            os.write(write, str(pid).encode())
            os._exit(0)
        else:
            os.close(read)
            os.close(write)
            connection.close()
            while os.getppid() != request["parent"]:
                time.sleep(POLL_S)
            return request, descriptors


def _engine(socket_fd: int, board_fd: int, parent: int) -> int:
    from lorapool.worker.engine_process import child

    return child.main(socket_fd, board_fd, parent)


def main(number: str) -> int:
    from lorapool.worker.engine_process import spawned
    from tests import fake_worker

    for name in ENGINES_IMPORT:
        importlib.import_module(name)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the tests; their end is this one's
    gc.freeze()
    request, [log] = serve(socket.socket(fileno=int(number)))
    for standard in (1, 2):
        os.dup2(log, standard)
    os.close(log)
    os.environ.clear()
    os.environ.update(request["environment"])
    signal.signal(signal.SIGINT, signal.default_int_handler)
    spawned._process = EngineForks().engine
    return fake_worker.main(request["argument"])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
