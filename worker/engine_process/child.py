"""The engine's process: ``python -m lorapool.worker.engine_process.child SOCKET BOARD PARENT``.

Builds the model that the worker names, then steps it until it is told to close, the worker has gone, or the engine
breaks. What ends it costs this process only. Sees no Redis and no password.
"""

from __future__ import annotations

import ctypes
import faulthandler
import functools
import gc
import importlib
import os
import select
import signal
import socket
import sys
import threading
import time
from contextlib import suppress
from typing import Any

import structlog

from lorapool.shared import logs
from lorapool.shared.errors import BaseModelError, LorapoolError
from lorapool.worker.config import WorkerConfig
from lorapool.worker.engine.engine_loop import EngineLoop
from lorapool.worker.engine.model import Model
from lorapool.worker.engine.port import Engine, EngineSick, Report, Residency
from lorapool.worker.engine_process import wire
from lorapool.worker.engine_process.step_board import StepBoard

STATE_EVERY_S = 0.05  # counters are told so often, residency when it changes
NAME = "lorapool-engine"  # as ps and top show it
_DIE_WITH_PARENT, _SET_NAME = 1, 15  # PR_SET_PDEATHSIG, PR_SET_NAME
log = structlog.get_logger()


class Line:
    """Frames to and from the worker. ``receive`` is one thread's, ``send`` another's."""

    def __init__(self, connection: socket.socket) -> None:
        self._socket = connection
        self._incoming = connection.makefile("rb")

    def receive(self) -> list[Any] | None:
        """The next message; None when the worker has gone."""
        head = self._incoming.read(wire.LENGTH.size)
        if len(head) < wire.LENGTH.size:
            return None
        size = wire.size_of(head)
        body = self._incoming.read(size)
        return wire.opened(body) if len(body) == size else None

    def send(self, kind: str, *fields: Any) -> None:
        """Waits while the worker does not read."""
        self._socket.sendall(wire.framed(kind, *fields))

    def has_room(self) -> bool:
        """Whether something can be sent without much waiting."""
        ready = select.poll()
        ready.register(self._socket, select.POLLOUT)
        return bool(ready.poll(0))


class Reporter:
    """What steps bring, sent as soon as the worker reads; while it does not, reports grow."""

    def __init__(self, line: Line) -> None:
        self._line = line
        self._unsent = Report()
        self._residency: Residency | None = None
        self._sent_s = 0.0
        self._counters: dict[str, Any] = {}
        self.loop: EngineLoop

    def __call__(self, report: Report, *, idle: bool) -> None:
        self._unsent.starts += report.starts
        self._unsent.updates += report.updates
        if not idle and not self._line.has_room():
            return
        state = self._state(idle)
        if self._unsent or state:
            unsent, self._unsent = self._unsent, Report()
            self._line.send("report", wire.packed_report(unsent), state)

    def _state(self, idle: bool) -> list[Any] | None:
        """Residency, counters and busy time, where there is news that is worth a message."""
        now, residency = time.monotonic(), self.loop.residency()
        moved = residency != self._residency
        if not moved and not idle and now - self._sent_s < STATE_EVERY_S:
            return None
        counters = wire.packed_counters(self.loop.counters())
        if not moved and counters == self._counters:
            return None
        self._residency, self._counters, self._sent_s = residency, counters, now
        return [wire.packed_residency(residency), counters, self.loop.busy_time.totals()]


def main(socket_fd: int, board_fd: int, parent: int) -> int:
    """Serve one worker; the exit status."""
    _end_with(parent)
    faulthandler.enable()
    line, board = Line(socket.socket(fileno=socket_fd)), StepBoard(board_fd)
    hello = line.receive()
    if hello is None:
        return 0
    _, path, target, config, options, log_options = hello
    sys.path += [folder for folder in path if folder not in sys.path]
    logs.configure(**log_options)
    try:
        engine = _load(line, _model(target, config, options))
        return 0 if engine is None else _serve(line, board, engine)
    except ModuleNotFoundError as error:
        reason = f"{error.name} is not installed; a worker needs: pip install 'lorapool[worker]'"
        return _broke(line, BaseModelError(reason))
    except Exception as error:  # whatever it is, the worker says it
        if not isinstance(error, LorapoolError):
            log.exception("engine broke")
        return _broke(line, error)


def _broke(line: Line, error: Exception) -> int:
    with suppress(OSError):  # unless the worker has gone
        line.send("sick" if isinstance(error, EngineSick) else "broke", *wire.packed_error(error))
    return 1


def _model(target: str, config: dict[str, Any], options: dict[str, Any]) -> Model:
    module, _, name = target.partition(":")
    model: Model = getattr(importlib.import_module(module), name)(WorkerConfig.parse(**config), **options)
    return model


def _load(line: Line, model: Model) -> Engine | None:
    """Answer until the model is loaded; None if the worker has gone."""

    def on_progress(what: str, share: float | None = None) -> None:
        line.send("progress", what, share)

    while (order := line.receive()) is not None:
        if order[0] == "identify":
            line.send("identified", model.identify(on_progress).model_dump())
            continue
        loaded = model.load(on_progress)
        line.send("loaded")
        loaded.engine.check_device()
        line.send("ready", wire.packed_facts(loaded.engine.facts), dict(loaded.handed))
        return loaded.engine
    return None


def _serve(line: Line, board: StepBoard, engine: Engine) -> int:
    reporter = Reporter(line)
    engine.watch(board)
    loop = EngineLoop(engine, reporter, board.passed)
    reporter.loop = loop
    gc.freeze()  # what is here stays: no collection needs to look at it
    threading.Thread(target=_listen, args=(line, loop), daemon=True).start()
    loop.run()
    return 0


def _listen(line: Line, loop: EngineLoop) -> None:
    """Take the worker's orders; end the process with it, whatever the engine does then."""
    try:
        while (order := line.receive()) is not None:
            _take(order, loop)
    except Exception as error:  # noqa: BLE001  a deaf engine would look well: it ends instead
        loop.order(functools.partial(_raise, error))
    else:
        os._exit(0)


def _take(order: list[Any], loop: EngineLoop) -> None:
    match order:
        case ["add", requests]:
            loop.add(wire.requests_of(requests))
        case ["abort", seq_id]:
            loop.abort(seq_id)
        case ["near", source]:
            loop.near(wire.source_of(source))  # type: ignore[arg-type]  # never None
        case ["close"]:
            loop.stop()


def _raise(error: Exception) -> None:
    raise error


def _end_with(parent: int) -> None:
    """When the worker goes, and not before: SIGTERM to a whole service or terminal is the worker's to act upon. Also
    where a step that never returns holds this interpreter's lock."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: None)  # not SIG_IGN, which processes started from here would inherit
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_SET_NAME, NAME.encode())
        ctypes.CDLL(None).prctl(_DIE_WITH_PARENT, signal.SIGKILL)
    if os.getppid() != parent:  # it went before it could be told of
        os._exit(0)


if __name__ == "__main__":
    sys.exit(main(*map(int, sys.argv[1:])))
