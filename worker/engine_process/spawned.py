"""SpawnedEngine: one process of the engine, seen from the worker, from its start to its end.

Knows how it is started, spoken to and ended, and whether it passes boundaries between steps; not what it serves.
Whatever goes wrong at its start, no process, zombie or descriptor is left behind.
"""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from lorapool.shared.errors import LorapoolError
from lorapool.worker.config import WorkerConfig
from lorapool.worker.engine.port import EngineFailed, name_of
from lorapool.worker.engine_process import wire
from lorapool.worker.engine_process.step_board import StepBoard

LOOK_S = 0.25  # between two looks at how old the step is
ENDING_S = 5.0  # for a killed process to be gone; a driver may hold it for longer
_READ_AHEAD_BYTES = 1 << 22
_NOT_FOR_IT = ("LORAPOOL_REDIS_URL",)
OnProgress = Callable[[str, float | None], None]


@dataclass(frozen=True)
class Program:
    """What the process runs: ``target`` (``module:name``) called with the config and ``options`` gives a Model."""

    target: str
    config: WorkerConfig
    options: Mapping[str, Any] = field(default_factory=dict)
    log_level: str = "info"
    log_json: bool | None = None


class Process(Protocol):
    """What is used of subprocess.Popen."""

    pid: int

    def wait(self, timeout: float | None = None) -> int: ...

    def kill(self) -> None: ...


class SpawnedEngine:
    """``board`` can be read after its end as well, until ``forget``."""

    def __init__(self, process: Process, board: StepBoard) -> None:
        self.process, self.board = process, board
        self._reader: asyncio.StreamReader
        self._writer: asyncio.StreamWriter

    @classmethod
    async def start(cls, program: Program) -> SpawnedEngine:
        """Begin to start it; the first answers tell how that went."""
        ours, theirs = socket.socketpair()
        try:
            spawned = cls(*_spawn(theirs))
        except BaseException:
            ours.close()
            raise
        finally:
            theirs.close()
        try:
            spawned._reader, spawned._writer = await asyncio.open_connection(sock=ours, limit=_READ_AHEAD_BYTES)
        except BaseException:
            ours.close()
            spawned.process.kill()
            spawned.process.wait()
            raise
        options = {"level": program.log_level, "json": program.log_json}
        config = program.config.model_dump(mode="json")
        spawned.send("hello", sys.path, program.target, config, dict(program.options), options)
        return spawned

    def send(self, kind: str, *fields: Any) -> None:
        """Never waits. Raises what msgpack raises at what it cannot carry; nothing is sent then."""
        self._writer.write(wire.framed(kind, *fields))

    async def receive(self) -> list[Any] | None:
        """The next message; None at the end. Raises ValueError at what is none."""
        try:
            size = wire.size_of(await self._reader.readexactly(wire.LENGTH.size))
            return wire.opened(await self._reader.readexactly(size))
        except (asyncio.IncompleteReadError, OSError):
            return None

    async def answer(self, kind: str, on_progress: OnProgress, step_timeout_s: float) -> list[Any]:
        """What it answers while it starts. Raises what the model raised, or EngineFailed; it is gone then."""
        try:
            return await self._answer(kind, on_progress, step_timeout_s)
        except Exception:
            await self.end(ENDING_S)
            self.forget()
            raise

    async def _answer(self, kind: str, on_progress: OnProgress, step_timeout_s: float) -> list[Any]:
        within_s: float | None = None
        while True:
            match await self._next(within_s):
                case None:
                    raise EngineFailed(f"the engine's process ended while it started: {await self.end(ENDING_S)}")
                case ["progress", what, share]:
                    on_progress(what, share)
                case ["loaded"]:  # what follows is a step or two
                    within_s = step_timeout_s
                case ["broke" | "sick", *error]:
                    raise _plainly(wire.error_of(error))
                case [answer, *fields] if answer == kind:
                    return fields

    async def _next(self, within_s: float | None) -> list[Any] | None:
        try:
            async with asyncio.timeout(within_s):
                return await self.receive()
        except TimeoutError:
            self.process.kill()
            raise EngineFailed(f"the device's check takes longer than {within_s:g} s (--step-timeout)") from None
        except ValueError as error:
            self.process.kill()
            raise EngineFailed(f"the engine's process said what is no message: {error}") from None

    async def hangs(self, bound_s: float) -> None:
        """Return once no boundary between steps was passed for the bound. What this process itself slept through does
        not count: both may have been stopped together."""
        seen, since_s, looked_at = 0, 0.0, time.monotonic()
        while since_s < bound_s:
            await asyncio.sleep(LOOK_S)
            now = time.monotonic()
            passed = self.board.passed_ns()
            since_s = since_s + min(now - looked_at, 2 * LOOK_S) if passed == seen else 0.0
            seen, looked_at = passed, now

    async def end(self, within_s: float) -> str:
        """Wait for it to be gone, kill it after ``within_s``; how it ended, in words."""
        self._writer.close()
        status = await asyncio.to_thread(_status, self.process, within_s)
        if status is None:
            self.process.kill()
            status = await asyncio.to_thread(_status, self.process, ENDING_S)
        return _in_words(status)

    def forget(self) -> None:
        """Give its board back."""
        self.board.close()


def _spawn(theirs: socket.socket) -> tuple[Process, StepBoard]:
    board_fd = StepBoard.make()
    try:
        board = StepBoard(board_fd)  # first: where it cannot be made, nothing was started
        return _process(theirs.fileno(), board_fd), board
    finally:
        os.close(board_fd)


def _process(socket_fd: int, board_fd: int) -> Process:
    """One that was begun with both descriptors."""
    arguments = [str(socket_fd), str(board_fd), str(os.getpid())]
    return subprocess.Popen(  # noqa: S603  our own module; it starts at once
        # -P: no module of the folder that the worker happens to stand in; it is told where to look
        [sys.executable, "-P", "-m", "lorapool.worker.engine_process.child", *arguments],
        stdin=subprocess.DEVNULL,
        pass_fds=(socket_fd, board_fd),
        env={name: value for name, value in os.environ.items() if name not in _NOT_FOR_IT},
        start_new_session=True,  # Ctrl-C is the worker's
    )


def _status(process: Process, within_s: float) -> int | None:
    try:
        return process.wait(within_s)
    except subprocess.TimeoutExpired:
        return None


def _plainly(error: Exception) -> Exception:
    """As an error of ours; the traceback of any other is in the log."""
    return error if isinstance(error, LorapoolError) else EngineFailed(f"the engine broke: {name_of(error)}: {error}")


def _in_words(status: int | None) -> str:
    if status is None:
        return "it cannot be killed (a device driver may hold it)"
    if status < 0:
        name = signal.Signals(-status).name
        return f"killed by {name}" + (", perhaps for want of memory" if name == "SIGKILL" else "")
    return f"exit status {status}"
