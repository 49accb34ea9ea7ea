"""A model that computes nothing: one token a row, at once. Everything above it is the product's.

What a no-op handler is to the peers, a step's row is to us; the clock counts rows.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field

from lorapool.shared.catalog.catalog import AdapterRecord, PoolConfig
from lorapool.shared.job import Job
from lorapool.shared.prompt_format import PromptFormat
from lorapool.worker.config import WorkerConfig
from lorapool.worker.engine.adapter_cache import AdapterCache
from lorapool.worker.engine.adapter_source import AdapterSource
from lorapool.worker.engine.continuous_batch import ContinuousBatch
from lorapool.worker.engine.model import Loaded, OnProgress
from lorapool.worker.engine.native_engine import NativeEngine
from lorapool.worker.engine.port import Facts
from lorapool.worker.engine.scheduler import Scheduler
from lorapool.worker.engine.sequence import Batch, Drawn
from lorapool.worker.host import InProcess

MAX_MODEL_LEN = 4096


@dataclass
class Clock:
    """First and last row computed, on the system's monotonic clock, which all processes share; and this process's
    CPU time between them."""

    rows: int = 0
    first_s: float = 0.0
    last_s: float = 0.0
    cpu_s: float = 0.0
    _cpu_at_first_s: float = 0.0

    def tick(self, rows: int) -> None:
        self.last_s = time.monotonic()
        if not self.rows:
            self.first_s, self._cpu_at_first_s = self.last_s, time.process_time()
        self.cpu_s = time.process_time() - self._cpu_at_first_s
        self.rows += rows


@dataclass
class NoopRunner:
    """A Runner whose rows all draw token 7, in steps of ``step_s``. ``held`` guards what the engine promises."""

    clock: Clock
    max_model_len: int = MAX_MODEL_LEN
    vocabulary: int = 256
    step_s: float = 0.0
    held: set[str] = field(default_factory=set)

    @property
    def reserved(self) -> frozenset[str]:
        return frozenset(self.held)

    def reserve(self, seq_id: str, _tokens: int) -> bool:
        self.held.add(seq_id)
        return True

    def release(self, seq_id: str) -> None:
        self.held.remove(seq_id)

    def step(self, batch: Batch) -> list[Drawn]:
        self.clock.tick(len(batch.works))
        if self.step_s:
            time.sleep(self.step_s)
        return [Drawn(work.sequence.seq_id, 7, 0.0) for work in batch.works if work.draws]

    def probe(self) -> None:
        """Nothing to fail."""

    def check_integrity(self) -> None:
        """Nothing to check."""


class NoopSlots:
    """A SlotStore that keeps no weights."""

    def __init__(self, slots: int) -> None:
        self.slots = slots
        self._full: set[int] = set()

    @property
    def occupied(self) -> frozenset[int]:
        return frozenset(self._full)

    def write(self, slot: int, weights: NoopWeights, /) -> None:
        self._full.add(slot)

    def clear(self, slot: int, /) -> None:
        self._full.discard(slot)


@dataclass(frozen=True)
class NoopWeights:
    digest: str
    nbytes: int = 1000


class NoopTokenizer:
    """A byte is a token."""

    eos_ids = frozenset[int]()

    @property
    def spelling(self) -> NoopSpelling:
        return NoopSpelling()

    def encode(self, job: Job, form: PromptFormat | None = None) -> list[int]:
        return list(job.prompt_ids or (job.prompt or "".join(m.content for m in job.messages or ())).encode())

    def tool_use(self, _job: Job, _job_id: str, _form: PromptFormat | None = None) -> None:
        """It calls none."""

    def detokenizer(self, *, tools: bool = False) -> NoopDetokenizer:
        return NoopDetokenizer()


class NoopDetokenizer:
    """Every token is a dot."""

    def push(self, _token_id: int) -> str:
        return "."


class NoopSpelling:
    """The same, as bytes."""

    def of(self, _token_id: int, *, first: bool = False) -> bytes:
        return b"."

    def is_special(self, _token_id: int) -> bool:
        return False


@dataclass(frozen=True)
class NoopModel:
    """A ``Model``; ``served_in_process`` makes it one for ``serve``."""

    config: WorkerConfig
    clock: Clock
    step_s: float = 0.0

    def identify(self, on_progress: OnProgress) -> PoolConfig:
        return PoolConfig(base_model="noop", digest="0" * 64, dtype="float32")

    def load(self, on_progress: OnProgress) -> Loaded:
        adapters = AdapterCache(NoopSlots(self.config.slots), _weights, self.config.host_cache_bytes)
        runner = NoopRunner(self.clock, step_s=self.step_s)
        batch = ContinuousBatch(runner, adapters, Scheduler(max_batch=self.config.max_batch))
        facts = Facts("none", "float32", MAX_MODEL_LEN, {"base_model": "noop"})
        return Loaded(NativeEngine(batch, adapters, facts))


def served_in_process(model: NoopModel) -> InProcess:
    """As the peers compute their no-ops: in the worker's own process."""
    return InProcess(model, NoopTokenizer(), _check)


def _weights(source: AdapterSource) -> NoopWeights:
    return NoopWeights(source.digest)


def _check(_record: AdapterRecord) -> Mapping[str, str | int]:
    return {}
