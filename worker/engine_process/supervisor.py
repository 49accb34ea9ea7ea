"""EngineProcess: the engine in a process of its own, behind the Engine port, and that process's supervisor.

A crash, a hang, a dead device or the kernel's out-of-memory killer end that process, not the worker. Then ``report``
says what was inside and which sequences the engine was busy with, and the process is started again, later each time
until something was finished. One that cannot be brought up again ends the worker. Knows no torch and no Redis.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple

import structlog

from lorapool.shared.backoff import jittered
from lorapool.shared.errors import InvalidRequest
from lorapool.shared.tasks import cancel_and_wait
from lorapool.worker.engine.adapter_source import AdapterSource
from lorapool.worker.engine.port import (
    EngineCounters,
    EngineDown,
    EngineFailed,
    Facts,
    Health,
    Lost,
    Report,
    Request,
    Residency,
    Update,
    name_of,
)
from lorapool.worker.engine_process import wire
from lorapool.worker.engine_process.spawned import ENDING_S, OnProgress, Program, SpawnedEngine

__all__ = ["EngineProcess", "Program"]

LAST_STEP_S = 30.0  # after which a process that was told to close is killed
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.1, 30.0
MOST_STARTS = 3  # that fail one after another
MOST_FRUITLESS = {"died": 8, "hung": 8, "sick": 2}  # ends in a row before anything was finished
_NOWHERE = Residency(frozenset(), frozenset(), frozenset())
log = structlog.get_logger()


class _End(NamedTuple):
    """How a process ended."""

    why: Literal["died", "hung", "sick"]
    reason: str


class EngineProcess:
    """Implements AsyncEngine. First ``identify`` and ``load``, then ``start``."""

    def __init__(self, program: Program, *, step_timeout_s: float) -> None:
        self._program, self._step_timeout_s = program, step_timeout_s
        self._child: SpawnedEngine | None = None
        self._supervisor: asyncio.Task[None] | None = None
        self._closing = False
        self._inside: dict[str, str] = {}  # seq_id → adapter ref
        self._report, self._arrived, self._up = Report(), asyncio.Event(), asyncio.Event()
        self._facts: Facts | None = None
        self._fatal: Exception | None = None
        self._residency = _NOWHERE
        self._counters, self._counted_before = EngineCounters(), EngineCounters()
        self._busy: Counter[str] = Counter()
        self._busy_before: Counter[str] = Counter()
        self._began_s = time.monotonic()
        self._ails, self._restarts, self._fruitless = "", 0, 0

    # -- before it serves

    async def identify(self, on_progress: OnProgress) -> dict[str, Any]:
        """What the model says it is. Raises what it raised, or EngineFailed."""
        [identity] = await self._asked("identify", "identified", on_progress)
        return dict(identity)

    async def load(self, on_progress: OnProgress) -> dict[str, Any]:
        """What the model handed over; ``facts`` are known then. Raises what it raised, or EngineFailed."""
        facts, handed = await self._asked("load", "ready", on_progress)
        self._facts = wire.facts_of(facts)
        return dict(handed)

    async def _asked(self, order: str, answer: str, on_progress: OnProgress) -> list[Any]:
        """Of the process that is there, or else of a new one."""
        if self._child is None:
            self._child = await SpawnedEngine.start(self._program)
        self._child.send(order)
        try:
            return await self._child.answer(answer, on_progress, self._step_timeout_s)
        except Exception:
            self._child = None
            raise

    # -- the port

    @property
    def facts(self) -> Facts:
        assert self._facts is not None, "loaded before it is asked"
        return self._facts

    def start(self) -> None:
        self._supervisor = asyncio.create_task(self._supervise())

    async def close(self) -> None:
        self._closing = True
        try:
            if self._supervisor is not None and self._child is not None and self._gets_on(self._child):
                self._child.send("close")
                await asyncio.wait([self._supervisor], timeout=LAST_STEP_S)
        finally:
            await self._end_all()

    def _gets_on(self, child: SpawnedEngine) -> bool:
        return self._up.is_set() and child.board.age_s() < self._step_timeout_s

    async def _end_all(self) -> None:
        self._up.clear()
        if self._supervisor is not None:
            await cancel_and_wait(self._supervisor)
        child, self._child = self._child, None
        if child is not None:
            child.process.kill()
            await child.end(ENDING_S)
            child.forget()

    def add(self, *requests: Request) -> None:
        if not self._up.is_set() or self._child is None:
            self._refuse(requests, EngineDown("the engine is not there"))
            return
        try:
            self._child.send("add", wire.packed_requests(requests))
        except Exception as error:  # noqa: BLE001  what cannot be carried is its own fault
            if len(requests) == 1:
                self._refuse(requests, InvalidRequest(f"the engine cannot be told of this request: {error}"))
                return
            for request in requests:
                self.add(request)
        else:
            self._inside.update((request.seq_id, request.ref) for request in requests)

    def _refuse(self, requests: Sequence[Request], error: Exception) -> None:
        self._hand_over(Report(updates=[Update(request.seq_id, error=error) for request in requests]))

    def abort(self, seq_id: str, *, finished: bool = False) -> None:
        if self._inside.pop(seq_id, None) is not None and self._child is not None:
            self._child.send("abort", seq_id)
            self._fruitless = 0 if finished else self._fruitless

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
        return self._counted_before + self._counters

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
        """Take what the process says until it ends, or has to."""
        child = self._child
        assert child is not None, "loaded before it serves"
        self._up.set()
        self._ails = ""
        reading = asyncio.create_task(self._read(child))
        watching = asyncio.create_task(child.hangs(self._step_timeout_s))
        try:
            await asyncio.wait({reading, watching}, return_when=asyncio.FIRST_COMPLETED)
            self._up.clear()
            hung = watching.done()
            if hung:
                child.process.kill()
                await asyncio.wait({reading}, timeout=ENDING_S)  # longer only if it cannot be killed
            own_end = reading.result() if reading.done() else None
            ended = await child.end(ENDING_S)
        finally:
            await cancel_and_wait(reading, watching)
        if hung:
            return _End("hung", f"no step ended for {self._step_timeout_s:g} s (--step-timeout)")
        return own_end or _End("died", ended)

    async def _read(self, child: SpawnedEngine) -> _End | None:
        """What it said of its own end, if anything."""
        end: _End | None = None
        try:
            while (message := await child.receive()) is not None:
                end = self._take(message) or end
        except Exception as error:  # whatever it is that makes no sense
            log.exception("the engine's process makes no sense")
            child.process.kill()
            return _End("died", f"its process said what is no message ({type(error).__name__}: {error})")
        return end

    def _take(self, message: Sequence[Any]) -> _End | None:
        match message:
            case ["report", report, state]:
                self._take_report(wire.report_of(report), state)
                return None
            case ["sick" | "broke", *error]:
                raised = wire.error_of(error)
                return _End("sick" if message[0] == "sick" else "died", f"{name_of(raised)}: {raised}")
            case _:
                raise ValueError(f"{message[0]!r}, expected a report or the reason of its end")

    def _take_report(self, report: Report, state: Sequence[Any] | None) -> None:
        if state is not None:
            residency, counters, busy = state
            self._residency, self._counters = wire.residency_of(residency), wire.counters_of(counters)
            self._busy = Counter({name: n for name, n in busy.items() if name != "up_ms"})
        for update in report.updates:
            if update.is_last:
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
        child, self._child = self._child, None
        assert child is not None
        inside = frozenset(self._inside)
        blamed = frozenset[str]() if end.why == "sick" else self._blamed(child)
        child.forget()
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

    def _blamed(self, child: SpawnedEngine) -> frozenset[str]:
        """What it was busy with: the rows of the step, and those whose adapters were just being brought. It may have
        been something else, between two steps: then any of those inside."""
        return child.board.busy_with(self._inside) if child.board.is_busy() else frozenset(self._inside)

    async def _start_again(self, end: _End) -> None:
        if self._fruitless > MOST_FRUITLESS[end.why]:
            raise EngineFailed(f"the engine {end.why} {self._fruitless} times in a row: {end.reason}")
        failure: Exception | None = None
        for attempt in range(MOST_STARTS):
            pause_s = min(LONGEST_PAUSE_S, FIRST_PAUSE_S * 2 ** (2 * (self._fruitless - 1) + attempt))
            await asyncio.sleep(jittered(pause_s))
            try:
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
