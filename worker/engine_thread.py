"""EngineThread: the thread that steps the engine, and the only one that touches it.

The event loop leaves orders in a queue (add, abort, know); between steps the thread takes them. What steps bring is
gathered and handed over with one ``call_soon_threadsafe`` for as many steps as passed meanwhile. Once it falls idle it
audits the engine: one that has lost count of slots or rows could give wrong answers, and ends. Knows no Redis.
"""

from __future__ import annotations

import asyncio
import queue
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import NamedTuple

import structlog

from lorapool.worker.adapters import Residency
from lorapool.worker.engine import Engine, EngineCounters, Update
from lorapool.worker.sequence import Sequence, Status
from lorapool.worker.timesheet import Timesheet

IDLE_POLL_S = 0.2  # an idle engine still finishes background loads
NO_PROGRESS_WAIT_S = 0.001  # all sequences wait for their adapters
LAST_STEP_S = 30.0  # a step that hangs must not keep the process
MOST_CRASHES = 8  # steps in a row that raised; then the worker gives up

Order = Callable[[], None]
log = structlog.get_logger()


class Start(NamedTuple):
    """A sequence got its row. ``resident``: its adapter was in a slot when it was first looked at."""

    seq_id: str
    load_ms: int  # waited for the adapter's slot
    resident: bool


@dataclass(slots=True)
class Report:
    """What one or more steps brought, in order."""

    starts: list[Start] = field(default_factory=list)
    updates: list[Update] = field(default_factory=list)

    def __bool__(self) -> bool:
        return bool(self.starts or self.updates)


class EngineThread:
    """Steps ``engine`` while it has work."""

    def __init__(self, engine: Engine, timesheet: Timesheet | None = None) -> None:
        self._engine = engine
        self.timesheet = timesheet or Timesheet()
        self._orders: queue.SimpleQueue[Order] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._report = Report()
        self._arrived = asyncio.Event()
        self._stopping = False
        self._sequences: dict[str, Sequence] = {}  # in the engine
        self._entering: dict[str, float | None] = {}  # not started: since when each waits for its adapter
        self._crashes = 0
        self._stalled = False
        self._audited = True  # since it last had work
        self._fatal: BaseException | None = None
        self._residency = engine.residency()
        self._thread = threading.Thread(target=self._run, name="engine", daemon=True)

    def start(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._thread.start()

    async def stop(self) -> None:
        """Let the current step end and join the thread; sequences still inside are dropped."""
        self._stopping = True
        self._orders.put(lambda: None)
        await asyncio.to_thread(self._thread.join, LAST_STEP_S)

    def add(self, *sequences: Sequence) -> None:
        """Queue sequences, so that they can join the same step; what is wrong with one comes back as its update."""
        self._orders.put(lambda: self._add(sequences))

    def abort(self, seq_id: str) -> None:
        """Take a sequence out of the batch before the next step; no updates of it matter from now on."""
        self._orders.put(lambda: self._abort(seq_id))

    def order(self, order: Order) -> None:
        """Run something between two steps, on the engine's thread."""
        self._orders.put(order)

    async def report(self) -> Report:
        """What the steps since the last call brought, once there is something; raises what ended the thread."""
        await self._arrived.wait()
        self._arrived.clear()
        with self._lock:
            taken, self._report = self._report, Report()
        if self._fatal is not None and not taken:
            raise self._fatal
        return taken

    def residency(self) -> Residency:
        """As of a recent step."""
        return self._residency

    def counters(self) -> EngineCounters:
        """Live: a field may be one step ahead of another."""
        return self._engine.counters

    # below: on the engine's thread

    def _run(self) -> None:
        try:
            while not self._stopping:
                self._take_orders()
                self._hand_over(self._step())
        except BaseException as error:  # noqa: BLE001  whatever it is, the event loop raises it
            self._fatal = error
            self._signal()

    def _take_orders(self) -> None:
        """Run all waiting orders; wait for one while there is nothing to do."""
        wait_s = self._patience_s()
        while not self._stopping:
            try:
                order = self._orders.get(timeout=wait_s) if wait_s else self._orders.get_nowait()
            except queue.Empty:
                self._audit()
                return
            order()
            wait_s = 0.0

    def _audit(self) -> None:
        """Once a spell of idleness; what it raises ends the thread, and with it the worker."""
        if self._audited or self._engine.has_work:
            return
        self._audited = True
        try:
            self._engine.check_integrity()
        except AssertionError as error:
            log.error("engine integrity lost: this worker stops serving", reason=str(error))  # noqa: TRY400  no trace
            raise

    def _patience_s(self) -> float:
        if not self._engine.has_work:
            return IDLE_POLL_S
        return NO_PROGRESS_WAIT_S if self._stalled else 0.0

    def _add(self, sequences: Iterable[Sequence]) -> None:
        for sequence in sequences:
            try:
                self._engine.add(sequence)
            except Exception as error:  # noqa: BLE001  one bad sequence is its own fault
                self._hand_over(Report(updates=[Update(sequence.seq_id, error=error)]))
            else:
                self._sequences[sequence.seq_id] = sequence
                self._entering[sequence.seq_id] = None
                self._audited = False

    def _abort(self, seq_id: str) -> None:
        self._engine.abort(seq_id)
        self._sequences.pop(seq_id, None)
        self._entering.pop(seq_id, None)

    def _step(self) -> Report:
        began, counters = time.monotonic(), self._engine.counters
        steps, read, drawn = counters.steps, counters.prefill_tokens, counters.decode_tokens
        try:
            updates = self._engine.step()
        except Exception as error:  # noqa: BLE001  logged, and every sequence inside ends with it
            updates = self._after_crash(error)
        else:
            self._crashes = 0
        if counters.steps > steps:
            took_s = time.monotonic() - began
            self.timesheet.add_step(took_s, counters.prefill_tokens - read, counters.decode_tokens - drawn)
        self._residency = self._engine.residency()
        report = Report(self._starts(began), updates)
        for update in updates:
            if update.finish_reason is not None or update.error is not None:
                self._sequences.pop(update.seq_id, None)
                self._entering.pop(update.seq_id, None)
        self._stalled = not report
        return report

    def _starts(self, began: float) -> list[Start]:
        """Who got a row in the step that began then, and who has begun to wait for an adapter."""
        started = []
        for seq_id, loading_since in tuple(self._entering.items()):
            status = self._sequences[seq_id].status
            if status is Status.LOADING and loading_since is None:
                self._entering[seq_id] = began
            elif status not in {Status.WAITING, Status.LOADING}:
                load_ms = 0 if loading_since is None else round((began - loading_since) * 1000)
                started.append(Start(seq_id, load_ms, resident=loading_since is None))
                del self._entering[seq_id]
        return started

    def _after_crash(self, error: Exception) -> list[Update]:
        """Empty the engine: each of its sequences ends with the error."""
        log.error("engine step failed", sequences=len(self._sequences), exc_info=error)
        self._crashes += 1
        if self._crashes >= MOST_CRASHES:
            raise error
        for seq_id in self._sequences:
            self._engine.abort(seq_id)
        self._entering.clear()
        return [Update(seq_id, error=error) for seq_id in self._sequences]

    def _hand_over(self, report: Report) -> None:
        if not report:
            return
        with self._lock:
            idle = not self._report
            self._report.starts += report.starts
            self._report.updates += report.updates
        if idle:
            self._signal()

    def _signal(self) -> None:
        self._loop.call_soon_threadsafe(self._arrived.set)
