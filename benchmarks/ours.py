"""Our engine on workload W: the real runner, the real adapter slots, the scheduler the worker uses.

Adapters are in their device slots before the clock starts, as every peer's are. Knows nothing of Redis: the queue has
a benchmark of its own.
"""

from __future__ import annotations

import time
from collections import Counter
from typing import ClassVar

from benchmarks.workload import Workload
from lorapool.shared.job import BASE_REF
from lorapool.worker.adapters.checkpoint import load_checkpoint
from lorapool.worker.engine.continuous_batch import ContinuousBatch
from lorapool.worker.engine.port import Residency, Sampling
from lorapool.worker.engine.scheduler import Scheduler
from lorapool.worker.engine.sequence import Sequence
from lorapool.worker.grammar.grammars import Grammars
from lorapool.worker.native.load import load_runner
from lorapool.worker.text.tokenizer import Tokenizer


class ResidentAdapters:
    """Every adapter is in its slot already; slot = index + 1."""

    loads = evictions = 0
    loaded: ClassVar[Counter[str]] = Counter()

    def acquire(self, ref: str) -> int:
        return int(ref) + 1

    def release(self, ref: str) -> None: ...

    def failure(self, ref: str) -> None: ...

    def overstaying(self, turn_s: float) -> str | None:
        return None

    def poll(self) -> None: ...

    def check_integrity(self) -> None: ...

    def residency(self) -> Residency:
        return Residency(frozenset(), frozenset(), frozenset())


class Ours:
    """``dtype`` is a name, such as ``bfloat16``; ``rank`` bounds a slot; ``grammars`` hold rows that have one."""

    def __init__(self, workload: Workload, dtype: str, rank: int, grammars: Grammars | None = None) -> None:
        self.workload, self.grammars = workload, grammars
        self.tokenizer = Tokenizer.from_folder(workload.model)
        self.runner = load_runner(
            workload.model,
            dtype=dtype,
            slots=max(1, len(workload.adapters)),
            max_rank=rank,
            grammars=grammars,
        )
        for index, folder in enumerate(workload.adapters):
            self.runner.lora.write(index + 1, load_checkpoint(folder, self.runner.spec, rank))

    def run(self, active: int) -> tuple[float, list[list[int]]]:
        """Seconds for one whole run over ``active`` adapters, and each request's new tokens."""
        engine = self._engine()
        sequences = [self.sequence(index, active) for index in range(len(self.workload.prompts))]
        start = time.perf_counter()
        for sequence in sequences:
            engine.add(sequence)
        while engine.has_work:
            for update in engine.step():
                if update.error is not None:
                    raise update.error
        seconds = time.perf_counter() - start
        engine.check_integrity()
        return seconds, [sequence.output_ids for sequence in sequences]

    def _engine(self) -> ContinuousBatch:
        scheduler = Scheduler(max_batch=len(self.workload.prompts))
        return ContinuousBatch(self.runner, ResidentAdapters(), scheduler)

    def sequence(self, index: int, active: int) -> Sequence:
        """Request ``index`` as the engine takes it."""
        adapter = self.workload.adapter_of(index, active)
        count = self.workload.new_tokens
        return Sequence(
            seq_id=str(index),
            ref=BASE_REF if adapter is None else str(adapter),
            prompt_ids=self.workload.prompts[index],
            params=Sampling(count, min_new_tokens=count, eos_ids=tuple(self.tokenizer.eos_ids)),
        )
