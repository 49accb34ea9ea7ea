"""EngineLoop: drives any engine from one thread, which is the only one that touches it.

Orders come in from other threads (add, abort, near) and are taken between two steps; what steps bring goes out through
``deliver``. Once it falls idle it audits the engine: one that has lost count of slots or rows could give wrong answers,
and ends. Knows no event loop and no process.
"""

from __future__ import annotations

import queue
import time
from collections.abc import Callable, Iterable
from typing import Protocol

import structlog

from lorapool.worker.engine.adapter_source import AdapterSource
from lorapool.worker.engine.busy_time import BusyTime
from lorapool.worker.engine.port import Engine, EngineCounters, EngineSick, Report, Request, Residency, Update

IDLE_POLL_S = 0.2  # an idle engine still finishes background loads
NO_PROGRESS_WAIT_S = 0.001  # all sequences wait for their adapters
MOST_CRASHES = 8  # steps in a row that raised; then the engine gives up

Order = Callable[[], None]
log = structlog.get_logger()


class Deliver(Protocol):
    """Takes a report, empty ones too; ``idle``: the engine has nothing to do."""

    def __call__(self, report: Report, *, idle: bool) -> None: ...


class EngineLoop:
    """``passed`` is called at each boundary between steps. ``run`` ends by ``stop``, or raises what ended it."""

    def __init__(self, engine: Engine, deliver: Deliver, passed: Callable[[], None]) -> None:
        self._engine = engine
        self._deliver, self._passed = deliver, passed
        self.busy_time = BusyTime()
        self._orders: queue.SimpleQueue[Order] = queue.SimpleQueue()
        self._stopping = False
        self._refused: list[Update] = []
        self._inside: set[str] = set()
        self._crashes = 0
        self._stalled = False
        self._audited = True  # since it last had work

    # from any thread

    def add(self, requests: Iterable[Request]) -> None:
        """Queue requests; what is wrong with one comes back as its update."""
        self._orders.put(lambda: self._add(requests))

    def abort(self, seq_id: str) -> None:
        """Take a sequence out before the next step."""
        self._orders.put(lambda: self._abort(seq_id))

    def near(self, source: AdapterSource) -> None:
        """Bring an adapter towards a slot."""
        self._orders.put(lambda: self._near(source))

    def order(self, order: Order) -> None:
        """Run something between two steps; what it raises ends the engine."""
        self._orders.put(order)

    def stop(self) -> None:
        """End after the current step; sequences still inside are dropped."""
        self._stopping = True
        self._orders.put(lambda: None)

    def residency(self) -> Residency:
        """Where each adapter is now."""
        return self._engine.residency()

    def counters(self) -> EngineCounters:
        """Live: a field may be one step ahead of another."""
        return self._engine.counters()

    # on the engine's thread

    def run(self) -> None:
        """Take orders and step, until stopped."""
        try:
            while not self._stopping:
                self._passed()
                self._take_orders()
                report = self._step()
                self._deliver(report, idle=not self._engine.has_work)
        finally:
            self._engine.close()

    def _take_orders(self) -> None:
        """Run all waiting orders; wait for one while there is nothing to do."""
        wait_s = self._wait_s()
        while not self._stopping:
            try:
                order = self._orders.get(timeout=wait_s) if wait_s else self._orders.get_nowait()
            except queue.Empty:
                self._audit()
                return
            order()
            wait_s = 0.0

    def _audit(self) -> None:
        """Once a spell of idleness; what it raises ends the engine."""
        if not self._audited and not self._engine.has_work:
            self._audited = True
            self._engine.check_integrity()

    def _wait_s(self) -> float:
        if not self._engine.has_work:
            return IDLE_POLL_S
        return NO_PROGRESS_WAIT_S if self._stalled else 0.0

    def _add(self, requests: Iterable[Request]) -> None:
        for request in requests:
            try:
                self._engine.add(request)
            except Exception as error:  # noqa: BLE001  one bad request is its own fault
                self._refused.append(Update(request.seq_id, error=error))
            else:
                self._inside.add(request.seq_id)
                self._audited = False

    def _abort(self, seq_id: str) -> None:
        self._engine.abort(seq_id)
        self._inside.discard(seq_id)

    def _near(self, source: AdapterSource) -> None:
        try:
            self._engine.near(source)
        except Exception as error:  # noqa: BLE001  a wish: nothing depends on it
            log.warning("adapter not loaded", adapter=source.ref, error=str(error))

    def _step(self) -> Report:
        began_s, before = time.monotonic(), self._engine.counters()
        steps, read, drawn = before.steps, before.prefill_tokens, before.decode_tokens
        try:
            report = self._engine.step()
        except EngineSick:
            raise
        except Exception as error:  # noqa: BLE001  logged, and every sequence inside ends with it
            report = self._after_crash(error)
        else:
            self._crashes = 0 if self._engine.counters().steps > steps else self._crashes
        now = self._engine.counters()
        if now.steps > steps:
            took_s = time.monotonic() - began_s
            self.busy_time.add_step(took_s, now.prefill_tokens - read, now.decode_tokens - drawn)
        for update in report.updates:
            if update.is_last:
                self._inside.discard(update.seq_id)
        refused, self._refused = self._refused, []
        report.updates[:0] = refused
        self._stalled = not report
        return report

    def _after_crash(self, error: Exception) -> Report:
        """Empty the engine: each of its sequences ends with the error."""
        log.error("engine step failed", sequences=len(self._inside), exc_info=error)
        self._crashes += 1
        if self._crashes >= MOST_CRASHES:
            raise error
        for seq_id in self._inside:
            self._engine.abort(seq_id)
        return Report(updates=[Update(seq_id, error=error) for seq_id in self._inside])
