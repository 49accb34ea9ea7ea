"""NativeModel: the configured base model on the configured device, through transformers; for the engine's process.

Knows what depends on what, and in which order things are checked: the identity of the files first, which is what the
pool must agree on; the slow loading of weights last.
"""

from __future__ import annotations

import os

import structlog

from lorapool.shared.catalog.pool_config import PoolConfig
from lorapool.shared.errors import CheckpointError
from lorapool.worker.adapters.cache_folder import CacheFolder
from lorapool.worker.adapters.checkpoint import AdapterWeights, largest_bytes, load_checkpoint
from lorapool.worker.adapters.files import AdapterFiles
from lorapool.worker.adapters.model_outline import packed
from lorapool.worker.config import WorkerConfig
from lorapool.worker.confinement.bounded_call import BoundedCall
from lorapool.worker.engine.adapter_cache import AdapterCache
from lorapool.worker.engine.adapter_source import AdapterSource
from lorapool.worker.engine.continuous_batch import ContinuousBatch
from lorapool.worker.engine.model import Loaded, OnProgress
from lorapool.worker.engine.native_engine import NativeEngine
from lorapool.worker.engine.port import Facts
from lorapool.worker.engine.scheduler import Scheduler
from lorapool.worker.grammar.compiler import vocabulary
from lorapool.worker.grammar.grammars import Grammars
from lorapool.worker.native.base_model import BaseModel
from lorapool.worker.native.device import choose_device, choose_dtype, default_kv_bytes, describe, slot_bytes
from lorapool.worker.native.load import load_runner
from lorapool.worker.native.runner import ModelRunner
from lorapool.worker.text.tokenizer import Tokenizer

SAY_EVERY_BYTES = 64 << 20
LOAD_S = 60.0  # others wait so long for one adapter's files; a download goes on, and is there when asked for again
log = structlog.get_logger()


class NativeModel:
    """Implements Model."""

    def __init__(self, config: WorkerConfig) -> None:
        os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")  # the libraries' own bars; the worker shows one
        self._config = config
        self._device = choose_device(config.device)
        self._dtype = choose_dtype(config.dtype, self._device)
        self._base = BaseModel.locate(config.base_model)

    def identify(self, on_progress: OnProgress) -> PoolConfig:
        """Compute the digest of the files."""
        total, read, shown = max(1, self._base.nbytes), 0, 0

        def advance(size_bytes: int) -> None:
            nonlocal read, shown
            read += size_bytes
            if read - shown >= SAY_EVERY_BYTES:
                shown = read
                on_progress(f"reading {self._base.name}", read / total)

        on_progress(f"reading {self._base.name}", 0.0)
        digest = self._base.digest(advance)
        return PoolConfig(base_model=self._base.name, revision=self._base.revision, digest=digest, dtype=self._dtype)

    def load(self, on_progress: OnProgress) -> Loaded:
        """Load weights and tokenizer, run the self-check, build the engine; says what it takes."""
        config = self._config
        on_progress(f"loading {self._base.name} on {self._device}")
        tokenizer = Tokenizer.from_folder(self._base.folder)
        kv_bytes = config.kv_cache_bytes or default_kv_bytes(
            self._device, self._base.nbytes, config.gpu_memory_utilization
        )
        grammars = Grammars(vocabulary(tokenizer.packed()["fast"], sorted(tokenizer.eos_ids)))
        runner = self._runner(kv_bytes, grammars)
        adapters = _Adapters(config, runner)
        load = BoundedCall(adapters.load, LOAD_S, "reading an adapter")
        cache = AdapterCache(runner.lora, load, config.host_cache_bytes)
        batch = ContinuousBatch(runner, cache, Scheduler(max_batch=config.max_batch), grammars=grammars)
        facts = self._facts(runner, kv_bytes)
        log.info("serving", memory=_memory(config.slots, int(facts.more["slot_bytes"]), kv_bytes), **facts.fields())
        handed = {
            "tokenizer": tokenizer.packed(),
            "outline": packed(runner.spec, config.max_rank),
            "limit_bytes": largest_bytes(runner.spec, config.max_rank),
        }
        return Loaded(NativeEngine(batch, cache, facts), handed)

    def _runner(self, kv_bytes: int, grammars: Grammars) -> ModelRunner:
        config = self._config
        return load_runner(
            self._base.folder,
            device=self._device,
            dtype=self._dtype,
            slots=config.slots,
            max_rank=config.max_rank,
            max_model_len=config.max_model_len,
            kv_cache_bytes=kv_bytes,
            names=self._base.names(),
            grammars=grammars,
        )

    def _facts(self, runner: ModelRunner, kv_bytes: int) -> Facts:
        more: dict[str, str | int | float] = {
            "base_model": self._base.name,
            "hardware": describe(self._device),
            "slots": self._config.slots,
            "max_rank": self._config.max_rank,
            "slot_bytes": slot_bytes(runner.spec, self._config.max_rank, self._device),
            "kv_cache_bytes": kv_bytes,
            "max_batch": self._config.max_batch,
        }
        return Facts(self._device, self._dtype, runner.max_model_len, more, grammars=True)


class _Adapters:
    """Reads adapters for one runner."""

    def __init__(self, config: WorkerConfig, runner: ModelRunner) -> None:
        self._spec, self._max_rank = runner.spec, config.max_rank
        limit_bytes = largest_bytes(runner.spec, config.max_rank)
        cache = CacheFolder(config.adapter_cache)
        self._files = AdapterFiles(config.adapter_roots, config.adapter_places, cache, limit_bytes)

    def load(self, source: AdapterSource) -> AdapterWeights:
        try:
            return self._read(source)
        except CheckpointError:
            if not self._files.repaired(source):
                raise
        return self._read(source)

    def _read(self, source: AdapterSource) -> AdapterWeights:
        with self._files.reading(source) as folder:
            return load_checkpoint(folder, self._spec, self._max_rank, source.digest)


def _memory(slots: int, slot_bytes: int, kv_bytes: int) -> str:
    return (
        f"{slots} adapter slots × at most {slot_bytes / 2**20:.0f} MiB, "
        f"keys and values at most {kv_bytes / 2**30:.1f} GiB"
    )
