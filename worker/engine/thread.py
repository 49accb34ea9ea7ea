"""EngineThread: an engine in a thread of this process, behind the Engine port. For tests, benchmarks and debugging.

What steps bring is gathered and handed over with one ``call_soon_threadsafe`` for as many steps as passed meanwhile.
A step that hangs can only be told of here, not ended: ``report`` raises, and the process has to go. Knows no Redis.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Mapping

from lorapool.worker.engine.adapter_source import AdapterSource
from lorapool.worker.engine.engine_loop import EngineLoop, Order
from lorapool.worker.engine.port import Engine, EngineCounters, EngineFailed, Health, Report, Request, Residency

LAST_STEP_S = 30.0  # a step that hangs must not keep the process
STEP_TIMEOUT_S = 120.0
LOOK_S = 0.5


class EngineThread:
    """Implements AsyncEngine."""

    def __init__(
        self,
        engine: Engine,
        *,
        step_timeout_s: float = STEP_TIMEOUT_S,
    ) -> None:
        self._loop = EngineLoop(engine, self._hand_over, self._passed)
        self.facts, self._step_timeout_s = engine.facts, step_timeout_s
        self._lock = threading.Lock()
        self._report = Report()
        self._arrived = asyncio.Event()
        self._passed_s = 0.0
        self._fatal: BaseException | None = None
        self._residency = self._loop.residency()
        self._thread = threading.Thread(target=self._run, name="engine", daemon=True)

    def start(self) -> None:
        """Begin to step; call it on the event loop that takes the reports."""
        self._events = asyncio.get_running_loop()
        self._passed()
        self._thread.start()

    async def close(self) -> None:
        """Let the current step end and join the thread; sequences still inside are dropped."""
        self._loop.stop()
        if not self._thread.is_alive():
            return
        within_s = 0.0 if self._age_s() > self._step_timeout_s else LAST_STEP_S
        await asyncio.to_thread(self._thread.join, within_s)

    def add(self, *requests: Request) -> None:
        self._loop.add(requests)

    def abort(self, seq_id: str, *, finished: bool = False) -> None:
        self._loop.abort(seq_id)

    def near(self, source: AdapterSource) -> None:
        self._loop.near(source)

    def order(self, order: Order) -> None:
        """Run something between two steps, on the engine's thread."""
        self._loop.order(order)

    async def report(self) -> Report:
        """What the steps since the last call brought; raises what ended the thread, EngineFailed if a step hangs."""
        while True:
            try:
                async with asyncio.timeout(LOOK_S):
                    await self._arrived.wait()
                    break
            except TimeoutError:
                if (age_s := self._age_s()) > self._step_timeout_s:
                    reason = f"a step hangs for {age_s:.0f} s (--step-timeout {self._step_timeout_s:g})"
                    raise EngineFailed(reason) from None
        self._arrived.clear()
        with self._lock:
            taken, self._report = self._report, Report()
        if self._fatal is not None:
            if not taken:
                raise self._fatal
            self._arrived.set()
        return taken

    async def up(self) -> None:
        return None

    def residency(self) -> Residency:
        return self._residency

    def counters(self) -> EngineCounters:
        return self._loop.counters().copy()

    def busy_time(self) -> Mapping[str, int]:
        return self._loop.busy_time.totals()

    def health(self) -> Health:
        return Health("running", "", self._age_s(), 0)

    def _age_s(self) -> float:
        return time.monotonic() - self._passed_s if self._thread.is_alive() else 0.0

    # below: on the engine's thread

    def _run(self) -> None:
        try:
            self._loop.run()
        except BaseException as error:  # noqa: BLE001  whatever it is, the event loop raises it
            self._fatal = error
            self._signal()

    def _passed(self) -> None:
        self._passed_s = time.monotonic()

    def _hand_over(self, report: Report, *, idle: bool) -> None:
        self._residency = self._loop.residency()
        if not report:
            return
        with self._lock:
            quiet = not self._report
            self._report.starts += report.starts
            self._report.updates += report.updates
        if quiet:
            self._signal()

    def _signal(self) -> None:
        self._events.call_soon_threadsafe(self._arrived.set)
