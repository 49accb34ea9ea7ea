"""PortModel: a deterministic model for tests of the Engine port, in this process or in one of its own.

A prompt's first token may ask for something to happen in the step that reads it, an adapter's uri for something while
it is loaded; ``diary`` is a folder in which each load leaves a line, so that the n-th may go wrong.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lorapool.shared.catalog.pool_config import PoolConfig
from lorapool.shared.errors import BaseModelError
from lorapool.worker.config import WorkerConfig
from lorapool.worker.engine.adapter_cache import AdapterCache
from lorapool.worker.engine.adapter_source import AdapterSource
from lorapool.worker.engine.continuous_batch import ContinuousBatch
from lorapool.worker.engine.model import Loaded, OnProgress
from lorapool.worker.engine.native_engine import NativeEngine
from lorapool.worker.engine.port import Facts
from lorapool.worker.engine.scheduler import Scheduler
from lorapool.worker.engine.sequence import Batch, Drawn
from lorapool.worker.grammar.grammars import Grammars
from tests.fake_engine import FakeEngine
from tests.fake_runner import FakeRunner, FakeStore
from tests.fake_vocabulary import vocabulary

DIE, SLEEP, SLEEP_IN_C, BABBLE, LIE, LEAK, BREAK, SICKEN, LONG_WORDS, NAP = range(901, 911)
CONTEXT = 1 << 20


@dataclass(frozen=True)
class Weights:
    digest: str
    nbytes: int = 1


def _break(words: str = "broken on purpose") -> None:
    raise RuntimeError(words)


def _write(what: bytes) -> None:
    """To the worker, past all that is agreed upon."""
    os.write(int(sys.argv[1]), what)
    time.sleep(3600)


_ACTS: dict[int, Callable[[], object]] = {
    DIE: lambda: os.kill(os.getpid(), signal.SIGKILL),
    SLEEP: lambda: time.sleep(3600),
    SLEEP_IN_C: lambda: ctypes.PyDLL(None).sleep(3600),  # holds the interpreter's lock
    BABBLE: lambda: _write(b"\x05\x00\x00\x00hello"),
    LIE: lambda: _write(b"\xff\xff\xff\xff"),
    BREAK: _break,
    LONG_WORDS: lambda: _break("\ud800" + "x" * (3 << 20)),
    NAP: lambda: time.sleep(0.5),
}


class PortRunner(FakeRunner):
    """Does what the first token of a prompt asks for."""

    sick = False

    def step(self, batch: Batch) -> list[Drawn]:
        asked = {work.sequence.prompt_ids[0] for work in batch.works}
        for act in sorted(asked & {*_ACTS, LEAK, SICKEN}):
            self._do(act)
        self.probe()
        return super().step(batch)

    def _do(self, act: int) -> None:
        if act == LEAK:
            self.reserve("leaked", 1)
        elif act == SICKEN:
            self.sick = True
        else:
            _ACTS[act]()

    def probe(self) -> None:
        if self.sick:
            raise RuntimeError("an illegal memory access was encountered")


@dataclass(frozen=True)
class PortModel:
    """``fails``: which loads raise BaseModelError, which kill their process, which never end: by number, from 1."""

    config: WorkerConfig
    step_s: float = 0.0
    diary: str = ""
    fails: tuple[int, ...] = ()
    dies: tuple[int, ...] = ()
    hangs: tuple[int, ...] = ()

    def identify(self, on_progress: OnProgress) -> PoolConfig:
        on_progress("reading port", 0.5)
        return PoolConfig(base_model="port", digest="0" * 64, dtype="float32")

    def load(self, on_progress: OnProgress) -> Loaded:
        on_progress("loading port")
        self._begin()
        store = FakeStore(self.config.slots)
        runner = PortRunner(store, step_s=self.step_s, max_model_len=CONTEXT, kv_tokens=4 * CONTEXT)
        adapters = AdapterCache(store, _weights, self.config.host_cache_bytes)
        scheduler = Scheduler(max_batch=self.config.max_batch, prefill_tokens=CONTEXT)
        runner.grammars = grammars = Grammars(vocabulary())
        batch = ContinuousBatch(runner, adapters, scheduler, grammars=grammars)
        facts = Facts("port", "float32", CONTEXT, {"kind": "native"}, grammars=True)
        return Loaded(NativeEngine(batch, adapters, facts), {"words": ["of", "the", "model"]})

    def _begin(self) -> None:
        if not self.diary:
            return
        with Path(self.diary, "loads").open("a+") as lines:
            lines.write(f"{os.getpid()}\n")
            lines.seek(0)
            number = len(lines.readlines())
        if number in self.hangs:
            ctypes.PyDLL(None).sleep(3600)
        if number in self.dies:
            os.kill(os.getpid(), signal.SIGKILL)
        if number in self.fails:
            raise BaseModelError(f"load {number} fails on purpose")


@dataclass(frozen=True)
class FakeEngineModel(PortModel):
    """The same over FakeEngine, which has nothing but the port in common with the native engine."""

    def load(self, on_progress: OnProgress) -> Loaded:
        on_progress("loading port")
        facts = Facts("port", "float32", CONTEXT, {"kind": "fake"}, grammars=True)
        sizes = {"slots": self.config.slots, "rows": self.config.max_batch}
        return Loaded(FakeEngine(facts, load=_weights, act=_act, step_s=self.step_s, **sizes))


def _act(token: int, engine: FakeEngine) -> None:
    if token == LEAK:
        engine.leaked = True
    elif token in _ACTS:
        _ACTS[token]()


def _weights(source: AdapterSource) -> Weights:
    kind, _, argument = source.uri.partition(":")
    acts: dict[str, Any] = {
        "slow": lambda: time.sleep(float(argument)),
        "deadly": lambda: os.kill(os.getpid(), signal.SIGKILL),
        "missing": Path("/nowhere/at/all", argument).read_bytes,
    }
    acts.get(kind, lambda: None)()
    return Weights(source.digest)
