"""EngineThread: what is its own beside the port's claims (tests/engine_port): crashes of the engine's own code."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import pytest

from lorapool.shared.job import BASE_REF
from lorapool.worker.engine.adapter_cache import AdapterCache
from lorapool.worker.engine.adapter_source import AdapterSource
from lorapool.worker.engine.continuous_batch import ContinuousBatch
from lorapool.worker.engine.engine_loop import MOST_CRASHES
from lorapool.worker.engine.native_engine import NativeEngine
from lorapool.worker.engine.port import EngineFailed, Facts, Request, Sampling, Start, Update
from lorapool.worker.engine.scheduler import Scheduler
from lorapool.worker.engine.thread import EngineThread
from tests.fake_runner import FakeRunner, FakeStore, completion


@dataclass(frozen=True)
class Weights:
    digest: str
    nbytes: int = 1


class Bench:
    """An engine thread and what it has reported."""

    def __init__(self, *, step_s: float = 0.0, slots: int = 2, step_timeout_s: float = 60.0) -> None:
        store = FakeStore(slots)
        self.runner = FakeRunner(store, step_s=step_s, max_model_len=64)
        self.adapters = AdapterCache(store, lambda source: Weights(source.digest), 1000)
        self.engine = ContinuousBatch(self.runner, self.adapters, Scheduler(max_batch=4))
        whole = NativeEngine(self.engine, self.adapters, Facts("fake", "float32", 64))
        self.thread = EngineThread(whole, step_timeout_s=step_timeout_s)
        self.updates: list[Update] = []
        self.starts: list[Start] = []

    async def until(self, condition: Callable[[], object]) -> None:
        """Take reports until the condition holds."""
        async with asyncio.timeout(10):
            while not condition():
                report = await self.thread.report()
                self.updates += report.updates
                self.starts += report.starts

    def tokens(self, seq_id: str) -> list[int]:
        return [token for update in self.updates if update.seq_id == seq_id for token in update.token_ids]

    def ended(self, seq_id: str) -> bool:
        return any(update.seq_id == seq_id and update.is_last for update in self.updates)

    def add(self, seq_id: str, prompt: list[int], tokens: int = 4, ref: str = BASE_REF) -> None:
        source = None if ref == BASE_REF else AdapterSource(ref, ref, "")
        self.thread.add(Request(seq_id, ref, prompt, Sampling(tokens), source))


@asynccontextmanager
async def bench(**options: Any) -> AsyncIterator[Bench]:
    made = Bench(**options)
    made.thread.start()
    try:
        yield made
    finally:
        await made.thread.close()


async def test_aborted_sequence_leaves() -> None:
    """An aborted sequence frees its row at the next step and reports nothing more."""
    async with bench(step_s=0.005) as made:
        made.add("gone", [1], tokens=50)
        await made.until(lambda: made.tokens("gone"))
        made.thread.abort("gone")
        made.add("next", [2])
        await made.until(lambda: made.ended("next"))
        await made.thread.close()
        made.engine.check_integrity()
        assert not made.engine.has_work
        assert made.runner.reserved == frozenset()
    assert not made.ended("gone")


async def test_broken_step_ends_its_sequences_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """When the engine itself breaks, all that is inside ends with the error, and what comes later runs."""
    async with bench() as made:
        whole, broken = made.engine.step, [RuntimeError("broken")]
        monkeypatch.setattr(made.engine, "step", lambda: _raise(broken.pop()) if broken else whole())
        made.add("inside", [1])
        await made.until(lambda: made.ended("inside"))
        made.add("later", [2])
        await made.until(lambda: made.ended("later"))
    assert "broken" in str(made.updates[0].error)
    assert completion([2], "", 4) == made.tokens("later")


async def test_gives_up_after_many_broken_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """An engine that breaks at every step is not driven for ever: the event loop gets its error."""
    async with bench() as made:
        monkeypatch.setattr(made.engine, "step", lambda: _raise(RuntimeError("beyond repair")))
        for number in range(MOST_CRASHES):
            made.add(f"s{number}", [1])
        with pytest.raises(RuntimeError, match="beyond repair"):
            await made.until(lambda: False)


async def test_what_ended_it_is_raised_after_all_that_it_brought(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where the last report and the end come before anyone reads."""
    async with bench() as made:
        made.add("s", [1])
        made.thread.order(
            lambda: monkeypatch.setattr(made.engine, "check_integrity", lambda: _raise(ValueError("end")))
        )
        made.thread._thread.join(10)
        assert not made.thread._thread.is_alive()
        with pytest.raises(ValueError, match="end"):
            await made.until(lambda: False)
        monkeypatch.undo()
    assert completion([1], "", 4) == made.tokens("s")


async def test_a_hung_step_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """A thread cannot be ended: the event loop gets EngineFailed with the setting's name, and closing does not wait."""
    over = threading.Event()
    async with bench(step_timeout_s=0.3) as made:
        whole = made.engine.step
        monkeypatch.setattr(made.engine, "step", lambda: over.wait(30) and whole())
        made.add("s", [1])
        with pytest.raises(EngineFailed, match=r"hangs.*--step-timeout 0\.3"):
            await made.until(lambda: False)
        await made.thread.close()
        over.set()
        made.thread._thread.join(10)


async def test_one_that_never_began_closes() -> None:
    """And is not said to hang."""
    made = Bench()
    assert made.thread.health().step_age_s == 0
    await made.thread.close()
    made.adapters.close()


def _raise(error: Exception) -> list[Update]:
    raise error
