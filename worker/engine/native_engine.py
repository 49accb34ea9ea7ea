"""NativeEngine: the native engine behind the Engine port: one continuous batch, and the adapters that it runs with.

Requests become sequences here, and sequences that got a row are announced. Knows no torch, no Redis and no event loop.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

from lorapool.worker.engine.adapter_cache import AdapterCache
from lorapool.worker.engine.adapter_source import AdapterSource
from lorapool.worker.engine.continuous_batch import ContinuousBatch
from lorapool.worker.engine.port import EngineCounters, Facts, Report, Request, Residency, Start, Watch
from lorapool.worker.engine.sequence import Sequence, Status


@dataclass(slots=True)
class _Arrival:
    """A sequence that has no row yet, and since when it waits for its adapter."""

    sequence: Sequence
    loading_since_s: float | None = None


class NativeEngine:
    """Implements Engine."""

    def __init__(self, batch: ContinuousBatch, adapters: AdapterCache, facts: Facts) -> None:
        self._batch, self._adapters, self.facts = batch, adapters, facts
        self._arrivals: dict[str, _Arrival] = {}

    @property
    def has_work(self) -> bool:
        return self._batch.has_work

    def watch(self, watch: Watch) -> None:
        self._batch.entering, self._adapters.bringing = watch.enter, watch.bring

    def check_device(self) -> None:
        self._batch.check_device()

    def add(self, request: Request) -> None:
        if request.source is not None:
            self._adapters.know(request.source)
        sequence = Sequence(request.seq_id, request.ref, request.prompt_ids, request.params, grammar=request.grammar)
        self._batch.add(sequence)
        self._arrivals[sequence.seq_id] = _Arrival(sequence)

    def abort(self, seq_id: str) -> None:
        self._batch.abort(seq_id)
        self._arrivals.pop(seq_id, None)

    def near(self, source: AdapterSource) -> None:
        """Asking for a slot starts the load."""
        self._adapters.know(source)
        if self._adapters.acquire(source.ref) is not None:
            self._adapters.release(source.ref)

    def step(self) -> Report:
        began_s = time.monotonic()
        updates = self._batch.step()
        report = Report(self._starts(began_s), updates)
        for update in updates:
            if update.is_last:
                self._arrivals.pop(update.seq_id, None)
        return report

    def _starts(self, began_s: float) -> list[Start]:
        """Who got a row in the step that began then, and who has begun to wait for an adapter."""
        started = []
        for seq_id, arrival in tuple(self._arrivals.items()):
            since_s, sequence = arrival.loading_since_s, arrival.sequence
            if sequence.started:
                load_ms = 0 if since_s is None else round((began_s - since_s) * 1000)
                started.append(Start(seq_id, load_ms, resident=since_s is None))
                del self._arrivals[seq_id]
            elif sequence.status is Status.LOADING and since_s is None:
                arrival.loading_since_s = began_s
        return started

    def residency(self) -> Residency:
        return self._adapters.residency()

    def counters(self) -> EngineCounters:
        return self._batch.counters

    def check_integrity(self) -> None:
        self._batch.check_integrity()

    def close(self) -> None:
        self._adapters.close()
