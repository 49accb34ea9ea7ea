"""EngineProcess: the engine in a process of its own, behind the Engine port, and that process's supervisor.

A crash, a hang, a dead device or the kernel's out-of-memory killer end that process, not the worker. Then ``report``
says what was inside and which sequences the engine was busy with, and the process is started again, later each time
until something was finished. One that cannot be brought up again ends the worker. Knows no torch and no Redis.
"""

from __future__ import annotations

import asyncio
import dataclasses
import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

import structlog

from lorapool.shared.errors import LorapoolError
from lorapool.worker import engine_wire as wire
from lorapool.worker.adapter_source import AdapterSource
from lorapool.worker.config import WorkerConfig
from lorapool.worker.engine_port import (
    EngineCounters,
    EngineDown,
    EngineFailed,
    Health,
    Lost,
    Report,
    Request,
    Residency,
    Update,
    name_of,
)
from lorapool.worker.persistence import put_down
from lorapool.worker.step_board import StepBoard

LOOK_S = 0.25  # between two looks at how old the step is
LAST_STEP_S = 30.0  # after which a process that was told to close is killed
ENDING_S = 5.0  # for a killed process to be gone; a driver may hold it for longer
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.1, 30.0
MOST_STARTS = 3  # that fail one after another
MOST_FRUITLESS = {"died": 8, "hung": 8, "sick": 2}  # ends in a row before anything was finished
_NOT_FOR_IT = ("LORAPOOL_REDIS_URL",)
_NOWHERE = Residency(frozenset(), frozenset(), frozenset())
Say = Callable[[str, float | None], None]
log = structlog.get_logger()


@dataclass(frozen=True)
class Program:
    """What the process runs: ``target`` (``module:name``) called with the config and ``options`` gives a Model."""

    target: str
    config: WorkerConfig
    options: Mapping[str, Any] = field(default_factory=dict)
    log_level: str = "info"
    log_json: bool | None = None


class _End(NamedTuple):
    """How a process ended."""

    why: Literal["died", "hung", "sick"]
    reason: str


class _Child:
    """One process, from its start to its end."""

    def __init__(self, process: subprocess.Popen[bytes], board: StepBoard) -> None:
        self.process, self.board = process, board
        self._reader: asyncio.StreamReader
        self._writer: asyncio.StreamWriter

    @classmethod
    async def start(cls, program: Program) -> _Child:
        ours, theirs = socket.socketpair()
        board_fd = StepBoard.make()
        try:
            process = subprocess.Popen(  # noqa: ASYNC220, S603  our own module; it starts at once
                [sys.executable, "-m", "lorapool.worker.engine_child", str(theirs.fileno()), str(board_fd)],
                stdin=subprocess.DEVNULL,
                pass_fds=(theirs.fileno(), board_fd),
                env={name: value for name, value in os.environ.items() if name not in _NOT_FOR_IT},
                start_new_session=True,  # Ctrl-C is the worker's
            )
            child = cls(process, StepBoard(board_fd))
        finally:
            theirs.close()
            os.close(board_fd)
        child._reader, child._writer = await asyncio.open_connection(sock=ours, limit=1 << 22)
        options = {"level": program.log_level, "json": program.log_json}
        child.send("hello", program.target, program.config.model_dump(mode="json"), dict(program.options), options)
        return child

    def send(self, kind: str, *fields: Any) -> None:
        self._writer.write(wire.framed(kind, *fields))

    async def receive(self) -> list[Any] | None:
        """The next message; None at the end."""
        try:
            head = await self._reader.readexactly(wire.LENGTH.size)
            return wire.opened(await self._reader.readexactly(*wire.LENGTH.unpack(head)))
        except (asyncio.IncompleteReadError, OSError):
            return None

    async def end(self, within_s: float) -> str:
        """Wait for it to be gone, kill it after ``within_s``; how it ended, in words."""
        self._writer.close()
        status = await asyncio.to_thread(_status, self.process, within_s)
        if status is None:
            self.process.kill()
            status = await asyncio.to_thread(_status, self.process, ENDING_S)
        return _in_words(status)


class EngineProcess:
    """Implements EnginePort. First ``identify`` and ``load``, then ``start``."""

    def __init__(self, program: Program, *, step_timeout_s: float) -> None:
        self._program, self._step_timeout_s = program, step_timeout_s
        self._child: _Child | None = None
        self._supervisor: asyncio.Task[None] | None = None
        self._closing = False
        self._inside: dict[str, str] = {}  # seq_id → adapter ref
        self._report, self._arrived, self._up = Report(), asyncio.Event(), asyncio.Event()
        self._fatal: Exception | None = None
        self._residency = _NOWHERE
        self._counters, self._counted_before = EngineCounters(), EngineCounters()
        self._busy: Counter[str] = Counter()
        self._busy_before: Counter[str] = Counter()
        self._began_s = time.monotonic()
        self._ails, self._restarts, self._fruitless = "", 0, 0

    # -- before it serves

    async def identify(self, say: Say) -> dict[str, Any]:
        """What the model says it is. Raises what it raised, or EngineFailed."""
        self._child = await _Child.start(self._program)
        self._child.send("identify")
        [identity] = await self._answer(self._child, "identified", say)
        return dict(identity)

    async def load(self, say: Say) -> tuple[dict[str, Any], int, dict[str, Any]]:
        """Facts, the longest context, and what the model handed over. Raises what it raised, or EngineFailed."""
        if self._child is None:
            self._child = await _Child.start(self._program)
        self._child.send("load")
        facts, max_model_len, handed = await self._answer(self._child, "ready", say)
        return facts, max_model_len, handed

    async def _answer(self, child: _Child, kind: str, say: Say) -> list[Any]:
        within_s: float | None = None
        while True:
            match await self._next(child, within_s):
                case None:
                    raise EngineFailed(f"the engine's process ended while it started: {await child.end(ENDING_S)}")
                case ["progress", what, share]:
                    say(what, share)
                case ["loaded"]:  # what follows is a step or two
                    within_s = self._step_timeout_s
                case ["broke" | "sick", *error]:
                    await child.end(ENDING_S)
                    raise _plainly(wire.error_of(error))
                case [found, *fields] if found == kind:
                    return fields

    async def _next(self, child: _Child, within_s: float | None) -> list[Any] | None:
        try:
            async with asyncio.timeout(within_s):
                return await child.receive()
        except TimeoutError:
            child.process.kill()
            raise EngineFailed(f"the device's check takes longer than {within_s:g} s (--step-timeout)") from None

    # -- the port

    def start(self) -> None:
        self._supervisor = asyncio.create_task(self._supervise())

    async def close(self) -> None:
        self._closing = True
        child, self._child = self._child, None
        if child is not None and self._up.is_set():
            child.send("close")
            assert self._supervisor is not None, "up means started"
            await asyncio.wait([self._supervisor], timeout=LAST_STEP_S)
        if self._supervisor is not None:
            await put_down([self._supervisor])
        for left in {child, self._child} - {None}:
            assert left is not None
            await left.end(0.1)

    def add(self, *requests: Request) -> None:
        if not self._up.is_set() or self._child is None:
            down = [Update(request.seq_id, error=EngineDown("the engine is not there")) for request in requests]
            self._hand_over(Report(updates=down))
            return
        self._inside.update((request.seq_id, request.ref) for request in requests)
        self._child.send("add", wire.packed_requests(requests))

    def abort(self, seq_id: str) -> None:
        if self._inside.pop(seq_id, None) is not None and self._child is not None:
            self._child.send("abort", seq_id)

    def near(self, source: AdapterSource) -> None:
        if self._up.is_set() and self._child is not None:
            self._child.send("near", wire.packed_source(source))

    async def report(self) -> Report:
        await self._arrived.wait()
        self._arrived.clear()
        taken, self._report = self._report, Report()
        if self._fatal is not None and not taken:
            raise self._fatal
        if self._fatal is not None:
            self._arrived.set()
        return taken

    async def up(self) -> None:
        await self._up.wait()

    def residency(self) -> Residency:
        return self._residency

    def counters(self) -> EngineCounters:
        return _sum(self._counted_before, self._counters)

    def busy_time(self) -> Mapping[str, int]:
        up_ms = round(1000 * (time.monotonic() - self._began_s))
        return (
            {"busy_ms": 0, "decode_only_ms": 0, "decode_only_tokens": 0}
            | self._busy_before + self._busy
            | {"up_ms": up_ms}
        )

    def health(self) -> Health:
        up = self._up.is_set()
        age_s = self._child.board.age_s() if up and self._child is not None else 0.0
        return Health("running" if up else "starting", self._ails, age_s, self._restarts)

    # -- while it serves

    async def _supervise(self) -> None:
        try:
            while True:
                end = await self._serve()
                if self._closing:
                    return
                self._take_loss(end)
                await self._start_again(end)
        except Exception as error:  # noqa: BLE001  whatever it is, the worker's loop raises it
            self._fatal = error
            self._arrived.set()

    async def _serve(self) -> _End:
        """Take what the process says until it ends."""
        child = self._child
        assert child is not None, "loaded before it serves"
        self._up.set()
        self._ails = ""
        reading = asyncio.create_task(self._read(child))
        watching = asyncio.create_task(self._watch(child))
        await asyncio.wait({reading, watching}, return_when=asyncio.FIRST_COMPLETED)
        self._up.clear()
        if not reading.done():
            child.process.kill()
        else:
            watching.cancel()
        done, _ = await asyncio.wait({reading}, timeout=ENDING_S)  # longer only if it cannot be killed
        reading.cancel()
        said = reading.result() if done else None
        ended = await child.end(ENDING_S)
        if watching.done() and not watching.cancelled():
            return _End("hung", f"no step ended for {self._step_timeout_s:g} s (--step-timeout)")
        return said or _End("died", ended)

    async def _read(self, child: _Child) -> _End | None:
        """What it said of its own end, if anything."""
        end: _End | None = None
        while (message := await child.receive()) is not None:
            match message:
                case ["report", report, state]:
                    self._take_report(wire.report_of(report), state)
                case ["sick" | "broke", *error]:
                    found = wire.error_of(error)
                    end = _End("sick" if message[0] == "sick" else "died", f"{type(found).__name__}: {found}")
        return end

    async def _watch(self, child: _Child) -> None:
        """Return once no boundary between steps was passed for the bound. What this process itself slept through does
        not count: both may have been stopped together."""
        seen, since_s, looked_at = 0, 0.0, time.monotonic()
        while since_s < self._step_timeout_s:
            await asyncio.sleep(LOOK_S)
            now = time.monotonic()
            passed = child.board.passed_ns()
            since_s = since_s + min(now - looked_at, 2 * LOOK_S) if passed == seen else 0.0
            seen, looked_at = passed, now

    def _take_report(self, report: Report, state: list[Any] | None) -> None:
        if state is not None:
            residency, counters, busy = state
            self._residency, self._counters = wire.residency_of(residency), wire.counters_of(counters)
            self._busy = Counter({name: n for name, n in busy.items() if name != "up_ms"})
        for update in report.updates:
            if update.finish_reason is not None or update.error is not None:
                self._inside.pop(update.seq_id, None)
            if update.finish_reason is not None:
                self._fruitless = 0
        self._hand_over(report)

    def _hand_over(self, report: Report) -> None:
        if report:
            self._report.starts += report.starts
            self._report.updates += report.updates
            self._arrived.set()

    def _take_loss(self, end: _End) -> None:
        child = self._child
        assert child is not None
        inside = frozenset(self._inside)
        blamed = frozenset() if end.why == "sick" else self._blamed(child) or inside
        child.board.close()
        self._inside.clear()
        earlier = self._report.lost
        lost = Lost(end.why, end.reason, inside, blamed)
        if earlier is not None:
            lost = lost._replace(inside=inside | earlier.inside, blamed=blamed | earlier.blamed)
        self._report.lost = lost
        self._arrived.set()
        self._counted_before, self._counters = self.counters(), EngineCounters()
        self._busy_before, self._busy = self._busy_before + self._busy, Counter()
        self._residency, self._ails = _NOWHERE, f"engine {end.why}: {end.reason}"
        self._fruitless += 1
        log.error("engine lost", why=end.why, reason=end.reason, inside=len(inside), blamed=len(blamed))

    def _blamed(self, child: _Child) -> frozenset[str]:
        """What it was busy with: the rows of the step, and those whose adapters were on their way."""
        loading = {seq_id for seq_id, ref in self._inside.items() if ref in self._residency.loading}
        return child.board.among(self._inside) | loading

    async def _start_again(self, end: _End) -> None:
        if self._fruitless > MOST_FRUITLESS[end.why]:
            raise EngineFailed(f"the engine {end.why} {self._fruitless} times in a row: {end.reason}")
        failure: Exception | None = None
        for attempt in range(MOST_STARTS):
            pause_s = min(LONGEST_PAUSE_S, FIRST_PAUSE_S * 2 ** (2 * (self._fruitless - 1) + attempt))
            await asyncio.sleep(pause_s * random.uniform(0.5, 1.0))  # noqa: S311  jitter, not a secret
            try:
                self._child = None
                await self.load(self._say)
            except Exception as error:  # noqa: BLE001  whatever keeps it from starting: tried again, then told
                failure = error
                log.warning("engine did not start again", attempt=attempt + 1, error=str(error))
            else:
                self._restarts += 1
                log.warning("engine started again", after=end.why, restarts=self._restarts)
                return
        raise EngineFailed(f"the engine {end.why} ({end.reason}) and does not start again: {failure}")

    def _say(self, what: str, share: float | None = None) -> None:
        self._ails = self._ails.partition(" — ")[0] + f" — {what}"


def _sum(one: EngineCounters, other: EngineCounters) -> EngineCounters:
    names = [field.name for field in dataclasses.fields(EngineCounters)]
    return EngineCounters(**{name: getattr(one, name) + getattr(other, name) for name in names})


def _status(process: subprocess.Popen[bytes], within_s: float) -> int | None:
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
