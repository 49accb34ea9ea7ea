"""A model without one, and adapters for it: what a fake worker's engine runs, in a process without Redis.

Any process can say what an answer must be: ``expected``. A prompt that begins with POISON kills the engine's process,
one with DEADLY the worker with it, one with HANGING never ends its step, one with BROKEN makes every step that it is
part of raise, and one with UNREADABLE the tokenizer. After ``sick_after`` steps the device fails for good: also under
an engine that is started again.
"""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

from lorapool.shared.catalog.adapter_record import AdapterRecord
from lorapool.shared.catalog.pool_config import PoolConfig
from lorapool.shared.errors import AdapterUnavailable
from lorapool.worker.adapters.cache_folder import CacheFolder
from lorapool.worker.adapters.files import AdapterFiles
from lorapool.worker.adapters.judge import Judge
from lorapool.worker.config import WorkerConfig
from lorapool.worker.engine.adapter_cache import AdapterCache
from lorapool.worker.engine.adapter_source import AdapterSource
from lorapool.worker.engine.continuous_batch import ContinuousBatch
from lorapool.worker.engine.model import Loaded, OnProgress
from lorapool.worker.engine.native_engine import NativeEngine
from lorapool.worker.engine.port import Facts, OutOfMemory
from lorapool.worker.engine.scheduler import Scheduler
from lorapool.worker.engine.sequence import Batch, Drawn
from lorapool.worker.text.template_process import COMPUTES_S
from tests.chaos.ailments import Ailments
from tests.fake_runner import FakeRunner, FakeStore, completion

Load: TypeAlias = Callable[[AdapterSource], "FakeWeights"]
POISON, DEADLY, HANGING, BROKEN, UNREADABLE = "poison", "deadly", "hanging", "broken", "unreadable"


def prompt_ids(text: str) -> list[int]:
    return list(text.encode())


def expected(prompt: str, digest: str, count: int) -> tuple[int, ...]:
    """The tokens of a right answer; ``digest`` is empty for the base model."""
    return tuple(completion(prompt_ids(prompt), digest, count))


@dataclass(frozen=True)
class FakeWeights:
    digest: str
    nbytes: int = 1000


class DeadlyRunner(FakeRunner):
    """Takes its process down with a poisonous prompt, as a bad kernel does, hangs at a hanging one, raises at a broken
    one; and fails at everything once ``marker`` is there, which it makes itself after ``sick_after`` steps."""

    sick_after: int | None = None
    marker = Path("/nowhere")
    rows_in_memory: int = 1 << 30
    breaks: bool = True
    ailments: Ailments | None = None

    def step(self, batch: Batch) -> list[Drawn]:
        prompts = [bytes(work.sequence.prompt_ids).decode() for work in batch.works]
        if any(prompt.startswith((POISON, DEADLY)) for prompt in prompts):
            deadly = any(prompt.startswith(DEADLY) for prompt in prompts)
            os.kill(os.getppid() if deadly else os.getpid(), signal.SIGKILL)
            time.sleep(60)  # the kernel ends this process with its parent
        if any(prompt.startswith(HANGING) for prompt in prompts):
            time.sleep(3600)
        if self.sick_after is not None and len(self.batches) >= self.sick_after:
            self.marker.touch()
        self.probe()
        room = (self.ailments and self.ailments.rows) or self.rows_in_memory
        if len(batch.works) > room:
            raise OutOfMemory(f"no room for {len(batch.works)} rows")
        if self.breaks and any(prompt.startswith(BROKEN) for prompt in prompts):
            raise RuntimeError("broken on purpose")
        return super().step(batch)

    def probe(self) -> None:
        if self.marker.exists() or (self.ailments and self.ailments.is_sick):
            raise RuntimeError("an illegal memory access was encountered")


@dataclass(frozen=True)
class FakeModel:
    """A Model without one. ``base_model`` is what the pool is told, ``device`` what each result is.

    With an ``outline``, a file that model_outline.py has packed, adapters that lie ``below`` a folder are found and
    judged as by any worker; all others are sound, whatever is there. ``ailments``: a folder that says what ails it.
    """

    config: WorkerConfig
    step_s: float = 0.0
    base_model: str = "fake"
    max_model_len: int = 4096
    device: str = "fake"
    load_s: float = 0.0
    sick_after: int | None = None
    marker: str = "/nowhere"
    rows_in_memory: int = 1 << 30
    breaks: bool = True
    outline: str = ""
    below: str = ""
    ailments: str = ""
    template_s: float = COMPUTES_S

    def identify(self, on_progress: OnProgress) -> PoolConfig:
        on_progress(f"reading {self.base_model}", 0.5)
        return PoolConfig(base_model=self.base_model, digest="0" * 64, dtype="float32")

    def load(self, on_progress: OnProgress) -> Loaded:
        on_progress(f"loading {self.base_model}")
        time.sleep(self.load_s)
        store = FakeStore(self.config.slots)
        runner = DeadlyRunner(store, step_s=self.step_s, max_model_len=self.max_model_len)
        runner.sick_after, runner.marker = self.sick_after, Path(self.marker)
        runner.rows_in_memory, runner.breaks = self.rows_in_memory, self.breaks
        load: Load = _weights
        if self.outline:
            load = FoundAdapters(self.config, self.outline, self.below, self.template_s).load
        if self.ailments:
            runner.ailments = Ailments(Path(self.ailments))
            load = _unless_away(load, runner.ailments)
        adapters = AdapterCache(store, load, self.config.host_cache_bytes)
        batch = ContinuousBatch(runner, adapters, Scheduler(max_batch=self.config.max_batch))
        sizes = {"slots": self.config.slots, "max_batch": self.config.max_batch}
        facts = Facts(self.device, "float32", self.max_model_len, {"base_model": self.base_model, **sizes})
        return Loaded(NativeEngine(batch, adapters, facts))


class FoundAdapters:
    """Adapters below a folder, as any worker finds and judges them."""

    def __init__(self, config: WorkerConfig, outline: str, below: str, template_s: float) -> None:
        self._below = f"file://{below}/"
        self._files = AdapterFiles(
            config.adapter_roots, config.adapter_places, CacheFolder(config.adapter_cache), 1 << 30
        )
        read = json.loads(Path(outline).read_text())
        self._judge = Judge(self._files, read, {}, "{{ messages[0].content }}", template_s=template_s)

    def load(self, source: AdapterSource) -> FakeWeights:
        if source.uri.startswith(self._below):
            with self._files.reading(source):
                return _weights(source)
        return _weights(source)

    def check(self, record: AdapterRecord) -> dict[str, Any]:
        return self._judge.check(record) if record.uri.startswith(self._below) else sound(record)


def _unless_away(load: Load, ailments: Ailments) -> Load:
    def loaded(source: AdapterSource) -> FakeWeights:
        if source.ref in ailments.away:
            raise AdapterUnavailable(f"{source.uri}: its mount is not here")
        return load(source)

    return loaded


def _weights(source: AdapterSource) -> FakeWeights:
    return FakeWeights(source.digest)


def sound(record: AdapterRecord) -> dict[str, Any]:
    return {"rank": 4}
