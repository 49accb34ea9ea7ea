"""Runs jobs through the whole engine over one tiny model, and keeps the logits that every token was chosen by."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from copy import deepcopy
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lorapool.shared.digest import adapter_digest
from lorapool.shared.job import BASE_REF
from lorapool.worker.adapters.checkpoint import AdapterWeights, load_checkpoint
from lorapool.worker.engine.adapter_cache import AdapterCache
from lorapool.worker.engine.adapter_source import AdapterSource
from lorapool.worker.engine.continuous_batch import ContinuousBatch
from lorapool.worker.engine.port import Sampling, Update
from lorapool.worker.engine.scheduler import Scheduler
from lorapool.worker.engine.sequence import Sequence as Row
from lorapool.worker.grammar.grammars import Masks
from lorapool.worker.native.runner import ModelRunner
from tests.parity.verdict import Tally, judge
from tests.parity.worlds import base_model, oracle_logits
from tests.worker.tiny import Now, runner_over

SLOTS = 3


@dataclass(frozen=True)
class Job:
    """One row: which adapter (a ref, or the base model), what it is asked, and how it draws."""

    ref: str
    prompt: tuple[int, ...]
    count: int
    temperature: float = 0.0
    top_k: int = 0
    top_p: float = 1.0
    seed: int = 0

    @property
    def params(self) -> Sampling:
        return Sampling(self.count, self.seed, temperature=self.temperature, top_k=self.top_k, top_p=self.top_p)

    def row(self, seq_id: str, given: Sequence[int] = ()) -> Row:
        """Its sequence; ``given`` tokens of the answer are there already."""
        return Row(seq_id, self.ref, list(self.prompt), self.params, list(given))


@cache
def runner_of(name: str, seed: int, dtype: torch.dtype, slots: int = SLOTS) -> ModelRunner:
    """One runner an architecture: what earlier examples left in its memory must not matter to later ones."""
    model = deepcopy(base_model(name, seed)).to(dtype)
    return runner_over(model, slots=slots, max_rank=256, max_model_len=128, kv_cache_bytes=1 << 22)


@dataclass
class Bench:
    """An engine over a runner, with adapters that lie in folders."""

    runner: ModelRunner
    folders: dict[str, Path]
    max_batch: int = 8
    prefill_tokens: int = 16
    kv_tokens: int | None = None
    logits: dict[tuple[str, int], Tensor] = field(default_factory=dict)
    tokens: dict[str, list[int]] = field(default_factory=dict)
    errors: dict[str, Exception] = field(default_factory=dict)
    now_s: float = 0.0

    def __post_init__(self) -> None:
        for seq_id in self.runner.reserved:  # Hypothesis may end an example in the middle of a step
            self.runner.release(seq_id)
        for slot in self.runner.lora.occupied:
            self.runner.lora.clear(slot)
        self.adapters = AdapterCache(self.runner.lora, self._load, 1 << 26, Now(), lambda: self.now_s)
        for ref, folder in self.folders.items():
            self.know(ref, folder)
        scheduler = Scheduler(max_batch=self.max_batch, prefill_tokens=self.prefill_tokens)
        self.engine = ContinuousBatch(self.runner, self.adapters, scheduler, lambda: self.now_s)
        self._spy()

    def know(self, ref: str, folder: Path) -> None:
        self.adapters.know(AdapterSource(ref, adapter_digest(folder), str(folder)))

    def add(self, row: Row) -> None:
        self.tokens[row.seq_id] = []
        self.engine.add(row)

    def step(self) -> list[Update]:
        updates = self.engine.step()
        for update in updates:
            assert len(self.tokens[update.seq_id]) == update.offset or update.error or not update.token_ids
            self.tokens[update.seq_id] += update.token_ids
            if update.error is not None:
                self.errors[update.seq_id] = update.error
        self.engine.check_integrity()
        return updates

    def drain(self, each: Callable[[], Any] = lambda: None, limit: int = 3000) -> dict[str, list[int]]:
        """Step until nothing is left."""
        while self.engine.has_work:
            self.step()
            each()
            limit -= 1
            assert limit > 0, "the engine makes no progress"
        return self.tokens

    def _load(self, source: AdapterSource) -> AdapterWeights:
        return load_checkpoint(source.uri, self.runner.spec, self.runner.lora.max_rank, source.digest)

    def _spy(self) -> None:
        """Keep a copy of the logits of every draw; undone by the next bench over the same runner."""
        sampler, draw = self.runner._sampler, type(self.runner._sampler).draw

        def kept(logits: Tensor, rows: Sequence[Row], masks: Masks | None = None) -> Any:
            for row, scores in zip(rows, logits, strict=True):
                self.logits[row.seq_id, len(row.output_ids)] = scores.clone()
            return draw(sampler, logits, rows, masks)

        sampler.draw = kept  # type: ignore[method-assign]


def compare(bench: Bench, jobs: Sequence[Job], oracles: dict[str, Any], tally: Tally) -> None:
    """Run the jobs together and hold every token and logit against the oracle's.

    After an excused position a job goes on, in a later round, from the oracle's prefix.
    """
    rounds: list[tuple[Job, list[int]]] = [(job, []) for job in jobs]
    while rounds:
        for index, (job, given) in enumerate(rounds):
            row = job.row(f"{len(given)}/{index}", given)
            bench.add(row)
            bench.tokens[row.seq_id] = list(given)
        bench.drain()
        assert not bench.errors, str(bench.errors)
        rounds = [
            (job, prefix)
            for index, (job, given) in enumerate(rounds)
            if (prefix := _follow(bench, job, given, f"{len(given)}/{index}", oracles[job.ref], tally)) is not None
        ]
        bench.logits.clear()


def _follow(bench: Bench, job: Job, given: list[int], seq_id: str, oracle: Any, tally: Tally) -> list[int] | None:
    """Judge one answer up to its first excused token; the prefix to go on from, if any of it is left."""
    answer = bench.tokens[seq_id]
    assert len(answer) == job.count
    logits = oracle_logits(oracle, job.prompt, answer)
    for place in range(len(given), job.count):
        found = bench.logits[seq_id, place]
        expected = judge(found, logits[place], answer[place], job.params, job.seed, place, tally)
        if expected != answer[place]:
            return [*answer[:place], expected] if place + 1 < job.count else None
    return None


__all__ = ["BASE_REF", "Bench", "Job", "compare", "runner_of"]
