"""The thread between event loop and engine, over the fake runner."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import pytest

from lorapool.shared.errors import InvalidRequest
from lorapool.shared.job import BASE_REF, SamplingParams
from lorapool.worker.adapter_source import AdapterSource
from lorapool.worker.adapters import AdapterCache
from lorapool.worker.engine import Engine
from lorapool.worker.engine_loop import MOST_CRASHES
from lorapool.worker.engine_port import Request, Start, Update
from lorapool.worker.engine_thread import EngineThread
from lorapool.worker.scheduler import Scheduler
from tests.fake_runner import FakeRunner, FakeStore, WordDetokenizer, completion


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
        self.engine = Engine(self.runner, self.adapters, Scheduler(max_batch=4), frozenset())
        self.thread = EngineThread(self.engine, self.adapters, WordDetokenizer, step_timeout_s=step_timeout_s)
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
        return any(update.seq_id == seq_id and (update.finish_reason or update.error) for update in self.updates)

    def add(self, seq_id: str, prompt: list[int], tokens: int = 4, ref: str = BASE_REF) -> None:
        source = None if ref == BASE_REF else AdapterSource(ref, ref, "")
        self.thread.add(Request(seq_id, ref, prompt, SamplingParams(max_new_tokens=tokens), 0, source))


@asynccontextmanager
async def bench(**options: Any) -> AsyncIterator[Bench]:
    made = Bench(**options)
    made.thread.start()
    try:
        yield made
    finally:
        await made.thread.close()
        made.adapters.close()


async def test_steps_are_timed() -> None:
    """Every step that computed is busy time; waiting for work is not."""
    async with bench(step_s=0.01) as made:
        made.add("s", [1, 2, 3], tokens=5)
        await made.until(lambda: made.ended("s"))
        await asyncio.sleep(0.3)
        totals = made.thread.busy_time()
        assert made.engine.counters.steps == 5
    assert 50 <= totals["busy_ms"] <= totals["up_ms"] - 250
    assert 40 <= totals["decode_only_ms"] < totals["busy_ms"]
    assert 4 == totals["decode_only_tokens"]


async def test_tokens_in_order() -> None:
    """All tokens of all sequences arrive, each sequence's in order."""
    async with bench() as made:
        for number in range(6):
            made.add(f"s{number}", [number + 1], tokens=9)
        await made.until(lambda: all(made.ended(f"s{number}") for number in range(6)))
    for number in range(6):
        assert completion([number + 1], "", 9) == made.tokens(f"s{number}")


async def test_late_reader_gets_everything_at_once() -> None:
    """Steps that pass while nobody reads are handed over together."""
    async with bench() as made:
        made.add("s", [1], tokens=20)
        await asyncio.sleep(0.2)
        report = await made.thread.report()
    assert completion([1], "", 20) == [token for update in report.updates for token in update.token_ids]


async def test_bad_sequence_is_its_own_fault() -> None:
    """A sequence that the engine refuses comes back as an error; the others go on."""
    async with bench() as made:
        made.add("long", [1] * 64)
        made.add("good", [1])
        await made.until(lambda: made.ended("good") and made.ended("long"))
    [refused] = [update for update in made.updates if update.seq_id == "long"]
    assert isinstance(refused.error, InvalidRequest)
    assert completion([1], "", 4) == made.tokens("good")


async def test_first_load_and_hit() -> None:
    """The first sequence of an adapter waits for its slot, a later one finds it resident."""
    async with bench() as made:
        made.add("first", [1], ref="a@1")
        await made.until(lambda: made.ended("first"))
        made.add("second", [1], ref="a@1")
        await made.until(lambda: made.ended("second"))
        residency = made.thread.residency()
    assert [("first", False), ("second", True)] == [(start.seq_id, start.resident) for start in made.starts]
    assert made.starts[1].load_ms == 0
    assert frozenset({"a@1"}) == residency.device
    assert completion([1], "a@1", 4) == made.tokens("first")


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


async def test_an_engine_that_lost_count_ends_when_it_falls_idle() -> None:
    """A KV row that nobody gave back: the audit of the idle engine finds it and the event loop gets its error."""
    async with bench() as made:
        made.add("fine", [1])
        await made.until(lambda: made.ended("fine"))
        made.thread.order(lambda: made.runner.reserve("leaked", 4))
        made.add("next", [2])
        await made.until(lambda: made.ended("next"))
        with pytest.raises(AssertionError, match="leaked"):
            await made.until(lambda: False)
        made.runner.release("leaked")


def _raise(error: Exception) -> list[Update]:
    raise error
