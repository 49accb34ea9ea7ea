"""FakeEngine: the Engine port in the simplest way that keeps its promises: no scheduler, no cache, no tensors.

Its tokens are those of fake_runner.py: a pure function of prompt, adapter content and index. What it shares with the
native engine is the port alone, so that a claim that holds for both is one about the port.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

from llguidance import LLMatcher

from lorapool.shared.errors import AdapterConflict, InvalidRequest
from lorapool.shared.job import BASE_REF, FinishReason
from lorapool.worker.engine.adapter_source import AdapterSource
from lorapool.worker.engine.port import EngineCounters, Facts, Report, Request, Residency, Start, Update, Watch
from lorapool.worker.grammar.compiler import compiled
from tests.fake_runner import alternatives, forced, next_allowed, token_of
from tests.fake_vocabulary import vocabulary

VOCABULARY = 1000


@dataclass
class _Row:
    request: Request
    since_s: float | None = None  # waits for its adapter
    output_ids: list[int] = field(default_factory=list)
    matcher: LLMatcher | None = None

    def draw(self, token: int) -> bool:
        """This token, or the next that its grammar allows; True where that is at its end."""
        if self.matcher is not None:
            token = next_allowed(self.matcher.compute_bitmask(), token)
            self.matcher.consume_token(token)
        self.output_ids.append(token)
        return self.matcher is not None and self.matcher.is_stopped()


class FakeEngine:
    """``load`` reads an adapter, on a thread of its own; ``act`` does what a prompt's first token asks for."""

    def __init__(
        self,
        facts: Facts,
        *,
        slots: int,
        rows: int,
        load: Callable[[AdapterSource], Any],
        act: Callable[[int, FakeEngine], None] = lambda _token, _engine: None,
        step_s: float = 0.0,
    ) -> None:
        self.facts, self._slots, self._rows, self._step_s = facts, slots, rows, step_s
        self._load, self._act, self._loader = load, act, ThreadPoolExecutor(1)
        self._waiting: dict[str, _Row] = {}
        self._running: dict[str, _Row] = {}
        self._sources: dict[str, AdapterSource] = {}
        self._loading: dict[str, Future[Any]] = {}
        self._resident: OrderedDict[str, str] = OrderedDict()  # ref → digest, least recently used first
        self._counters = EngineCounters()
        self._watch: Watch | None = None
        self.leaked = False

    @property
    def has_work(self) -> bool:
        return bool(self._waiting or self._running)

    def watch(self, watch: Watch) -> None:
        self._watch = watch

    def check_device(self) -> None:
        """A device that never fails."""

    def add(self, request: Request) -> None:
        if not 0 < len(request.prompt_ids) < self.facts.max_model_len:
            raise InvalidRequest(f"{len(request.prompt_ids)} tokens: expected 1 to {self.facts.max_model_len - 1}")
        named = [*request.prompt_ids, *(token_id for token_id, _ in request.params.logit_bias)]
        if strange := [token for token in named if not 0 <= token < VOCABULARY]:
            raise InvalidRequest(f"token {strange}: the vocabulary has {VOCABULARY} tokens")
        if request.source is not None:
            self._know(request.source)
        matcher = None if request.grammar is None else compiled(vocabulary(), request.grammar)
        self._waiting[request.seq_id] = _Row(request, matcher=matcher)

    def abort(self, seq_id: str) -> None:
        self._waiting.pop(seq_id, None)
        self._running.pop(seq_id, None)

    def near(self, source: AdapterSource) -> None:
        self._know(source)
        self._bring(source.ref)

    def step(self) -> Report:
        report = Report()
        self._take_in()
        self._admit(report)
        if not self._running:
            return report
        self._count()
        if self._watch is not None:
            self._watch.enter(self._running)
        time.sleep(self._step_s)
        for seq_id, row in tuple(self._running.items()):
            report.updates.append(update := self._drawn(seq_id, row))
            if update.is_last:
                del self._running[seq_id]
        return report

    def residency(self) -> Residency:
        return Residency(frozenset(self._resident), frozenset(self._loading), frozenset())

    def counters(self) -> EngineCounters:
        return self._counters

    def check_integrity(self) -> None:
        assert not self.leaked, "leaked"
        assert len(self._running) <= self._rows and len(self._resident) <= self._slots

    def close(self) -> None:
        self._loader.shutdown(wait=False, cancel_futures=True)

    def _know(self, source: AdapterSource) -> None:
        known = self._sources.setdefault(source.ref, source)
        if known.digest != source.digest:
            raise AdapterConflict(f"{source.ref} has digest {source.digest}, here it is known with {known.digest}")

    def _bring(self, ref: str) -> None:
        if ref not in self._resident and ref not in self._loading:
            self._loading[ref] = self._loader.submit(self._load, self._sources[ref])

    def _take_in(self) -> None:
        used = {row.request.ref for row in self._running.values()}
        for ref in [ref for ref, load in self._loading.items() if load.done() and not load.exception()]:
            free = [old for old in self._resident if old not in used]
            if len(self._resident) == self._slots and not free:
                return
            if len(self._resident) == self._slots:
                del self._resident[free[0]]
                self._counters.evictions += 1
            self._resident[ref] = self._loading.pop(ref).result().digest
            self._counters.loaded[ref] += 1
            self._counters.adapter_loads += 1

    def _admit(self, report: Report) -> None:
        now_s = time.monotonic()
        for seq_id, row in tuple(self._waiting.items()):
            ref = row.request.ref
            if (load := self._loading.get(ref)) is not None and load.done() and (error := load.exception()):
                assert isinstance(error, Exception)
                report.updates.append(Update(seq_id, error=error))
                del self._waiting[seq_id], self._loading[ref]
            elif ref != BASE_REF and ref not in self._resident:
                row.since_s = row.since_s or now_s
                self._bring(ref)
            elif len(self._running) < self._rows:
                load_ms = 0 if row.since_s is None else round(1000 * (now_s - row.since_s))
                report.starts.append(Start(seq_id, load_ms, resident=row.since_s is None))
                self._running[seq_id] = self._waiting.pop(seq_id)

    def _count(self) -> None:
        counters, rows = self._counters, self._running.values()
        counters.steps += 1
        counters.step_rows += len(rows)
        counters.prefill_tokens += sum(len(row.request.prompt_ids) for row in rows if not row.output_ids)
        counters.decode_tokens += sum(bool(row.output_ids) for row in rows)

    def _drawn(self, seq_id: str, row: _Row) -> Update:
        request, params, offset = row.request, row.request.params, len(row.output_ids)
        try:
            if not offset:
                self._act(request.prompt_ids[0], self)
        except Exception as error:  # noqa: BLE001  what a row does is its own fault
            return Update(seq_id, error=error)
        digest = "" if request.ref == BASE_REF else self._resident[request.ref]
        token = forced(token_of(request.prompt_ids, digest, offset, VOCABULARY), params)
        ended = row.draw(token)
        token = row.output_ids[-1]
        ends = ended or (token in params.eos_ids and not params.ignore_eos)
        whole = len(row.output_ids) == min(params.max_new_tokens, self.facts.max_model_len - len(request.prompt_ids))
        reason = FinishReason.EOS_TOKEN if ends else FinishReason.LENGTH if whole else None
        top = (alternatives(token, params.top_logprobs, VOCABULARY),) if params.top_logprobs else ()
        return Update(seq_id, (token,), offset, reason, None, (-0.5,) if params.logprobs else (), top)
