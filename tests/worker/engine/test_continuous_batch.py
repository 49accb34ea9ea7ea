"""Engine over the fake runner and the real adapter cache: admission, ends, failures, counters."""

from __future__ import annotations

import random
from collections import Counter
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lorapool.shared.errors import InvalidRequest
from lorapool.shared.job import BASE_REF, FinishReason
from lorapool.worker.engine.adapter_cache import AdapterCache
from lorapool.worker.engine.continuous_batch import ContinuousBatch
from lorapool.worker.engine.port import Update
from lorapool.worker.engine.scheduler import Scheduler
from lorapool.worker.engine.sequence import Status
from tests.fake_runner import FakeRunner, FakeStore, completion
from tests.worker.engine.engine_bench import Bench, load
from tests.worker.tiny import Now, drain, sequence, tokens


def _want(ref: str) -> str:
    return "" if ref == BASE_REF else ref[0]


def test_every_row_gets_its_own_adapters_tokens() -> None:
    """More adapters than slots, more rows than room: each answer is that of (prompt, adapter) alone."""
    bench = Bench()
    refs = ["a@1", "b@1", BASE_REF, "c@1", "a@1", "d@1", "e@1", "b@1", "c@1"]
    for index, ref in enumerate(refs):
        bench.engine.add(sequence(str(index), [index] * (index + 1), ref, max_new_tokens=5))
    seen = drain(bench.engine)
    for index, ref in enumerate(refs):
        assert completion([index] * (index + 1), _want(ref), 5) == tokens(seen[str(index)])
    assert bench.runner.reserved == frozenset()
    assert bench.engine.counters.adapter_loads >= 5
    assert bench.engine.counters.evictions >= 3


@settings(max_examples=40, deadline=None)
@given(
    st.lists(
        st.tuples(st.sampled_from(["a@1", "b@1", "c@1", "d@1", BASE_REF]), st.integers(1, 20), st.integers(1, 6)),
        min_size=1,
        max_size=14,
    ),
    st.randoms(use_true_random=True),
)
def test_joins_and_aborts_do_not_change_others(jobs: list[tuple[str, int, int]], chance: random.Random) -> None:
    """Sequences added and aborted at any step: who stays gets the tokens of a calm run, and nothing leaks."""
    bench = Bench(kv_tokens=60)
    waiting, aborted = list(enumerate(jobs)), set[str]()
    seen: dict[str, list[Update]] = {}
    while waiting or bench.engine.has_work:
        while waiting and chance.random() < 0.5:
            index, (ref, length, new) = waiting.pop(0)
            bench.engine.add(sequence(str(index), [index] * length, ref, max_new_tokens=new))
        if chance.random() < 0.1:
            victim = str(chance.randrange(len(jobs)))
            if bench.engine.abort(victim):
                aborted.add(victim)
        for update in bench.engine.step():
            assert update.error is None
            seen.setdefault(update.seq_id, []).append(update)
        bench.engine.check_integrity()
    for index, (ref, length, new) in enumerate(jobs):
        got = tokens(seen.get(str(index), []))
        want = completion([index] * length, _want(ref), new)
        assert want[: len(got)] == got
        assert str(index) in aborted or len(got) == new
    assert bench.runner.reserved == frozenset()


def test_a_failing_step_blames_one_row_and_the_others_go_on() -> None:
    """The poisonous row alone ends with the error; the tokens of the others are those of a calm run."""
    bench = Bench()
    bench.runner.poison = {"2"}
    for index in range(4):
        bench.engine.add(sequence(str(index), [index], max_new_tokens=3))
    seen = drain(bench.engine)
    assert isinstance(seen["2"][0].error, RuntimeError)
    for index in (0, 1, 3):
        assert completion([index], "", 3) == tokens(seen[str(index)])
    assert bench.engine.counters.failed_steps == 3


def test_a_row_waits_for_its_adapter_while_others_run() -> None:
    """While a load is under way its row is LOADING and the base rows go on."""

    class Later(Now):
        def submit(self, work: Any, /, *args: Any, **_: Any) -> Any:
            future = super().submit(work, *args)
            self.pending = future
            stalled = type(future)()
            self.stalled = stalled
            return stalled

    later = Later()
    bench = Bench(executor=later)
    slow = sequence("slow", [1], "a@1", max_new_tokens=2)
    bench.engine.add(slow)
    bench.engine.add(sequence("base", [2], max_new_tokens=20))
    updates = [update for _ in range(6) for update in bench.engine.step()]
    assert {update.seq_id for update in updates} == {"base"}
    assert slow.status is Status.LOADING
    assert bench.adapters.residency().loading == {"a@1"}
    later.stalled.set_result(later.pending.result())
    assert completion([1], "a", 2) == tokens(drain(bench.engine)["slow"])


def test_a_load_that_fails_ends_its_rows_only() -> None:
    """The error of the load is the row's; a neighbour is served."""
    bench = Bench()
    bench.engine.add(sequence("bad", [1], "broken@1"))
    bench.engine.add(sequence("unknown", [1], "never@1"))
    bench.engine.add(sequence("good", [1], "a@1", max_new_tokens=2))
    seen = drain(bench.engine)
    assert isinstance(seen["bad"][0].error, OSError)
    assert "never@1" in str(seen["unknown"][0].error)
    assert completion([1], "a", 2) == tokens(seen["good"])


@pytest.mark.parametrize("prompt", [[], [1] * 16])
def test_a_prompt_beyond_the_context_is_refused(prompt: list[int]) -> None:
    """``add`` raises, naming both numbers, and nothing is queued."""
    bench = Bench(max_model_len=16)
    with pytest.raises(InvalidRequest, match=rf"{len(prompt)} tokens: expected 1 to 15"):
        bench.engine.add(sequence("a", prompt))
    assert not bench.engine.has_work


def test_new_tokens_are_capped_by_the_context() -> None:
    """What fits is generated, and the reason is length."""
    bench = Bench(max_model_len=16)
    bench.engine.add(sequence("a", [1] * 12, max_new_tokens=100))
    last = drain(bench.engine)["a"][-1]
    assert (FinishReason.LENGTH, 3) == (last.finish_reason, last.offset)


def test_updates_carry_offsets() -> None:
    """Each token is announced once, at its index."""
    bench = Bench()
    bench.engine.add(sequence("a", [1] * 20, max_new_tokens=3))
    updates = drain(bench.engine)["a"]
    assert [0, 1, 2] == [update.offset for update in updates]


def test_kv_memory_makes_rows_wait_in_order() -> None:
    """With room for one long row the next waits, is not overtaken, and is served afterwards."""
    bench = Bench(kv_tokens=30)
    for index, new in enumerate((15, 20, 2)):
        bench.engine.add(sequence(str(index), [index] * 5, max_new_tokens=new))
    bench.engine.step()
    assert bench.runner.reserved == {"0"}
    seen = drain(bench.engine)
    ends = sorted(seen, key=lambda seq_id: next(i for i, b in enumerate(bench.runner.batches) if b[0][0] == seq_id))
    assert ends == ["0", "1", "2"]


def test_counters_tell_what_happened() -> None:
    """Steps, rows, tokens, joins and mixed steps, recounted from the batches."""
    bench = Bench()
    rows = [("0", BASE_REF), ("1", "a@1"), ("2", "b@1")]
    for seq_id, ref in rows:
        bench.engine.add(sequence(seq_id, [1, 2], ref, max_new_tokens=4))
    drain(bench.engine)
    batches, counters = bench.runner.batches, bench.engine.counters
    assert (len(batches), sum(map(len, batches))) == (counters.steps, counters.step_rows)
    assert counters.prefill_tokens == 6
    assert counters.decode_tokens == 9
    mixed = Counter(len(batch) - 1 for batch in batches if "0" in {work[0] for work in batch})
    assert mixed == counters.mixed_steps
    assert counters.joins == sum(
        bool(new) and index > 0
        for index, batch in enumerate(batches)
        if (new := [work for work in batch if work[1] == 0])
    )


def test_a_cancelled_row_frees_what_it_held() -> None:
    """Abort in the middle: the KV row and the adapter reference are given back, and once only."""
    bench = Bench()
    bench.engine.add(sequence("a", [1], "a@1", max_new_tokens=50))
    for _ in range(4):
        bench.engine.step()
    assert bench.engine.abort("a")
    assert not bench.engine.abort("a")
    assert bench.runner.reserved == frozenset()
    bench.engine.check_integrity()


def test_a_long_prompt_delays_the_others_by_one_chunk_at_most() -> None:
    """While 4,000 tokens are prefilled every row that runs draws a token in every step, and no step has more than the
    budget's tokens beside them."""
    runner = FakeRunner(max_model_len=8192)
    adapters = AdapterCache(FakeStore(), load, 1 << 20, Now())
    engine = ContinuousBatch(runner, adapters, Scheduler(max_batch=8, prefill_tokens=512))
    for index in range(5):
        engine.add(sequence(str(index), [index] * 20, max_new_tokens=60))
    engine.step()
    engine.add(sequence("long", [7] * 4000, max_new_tokens=2))
    engine.add(sequence("late", [8] * 30, max_new_tokens=2))
    steps = []
    while "long" not in (drew := {update.seq_id for update in engine.step()}):
        steps.append((drew, runner.batches[-1]))
    assert 7 == len(steps)  # and the eighth draws its first token: 4000 / 512, rounded up
    for drew, batch in steps:
        assert {"0", "1", "2", "3", "4"} == drew
        assert 512 == sum(count for seq_id, _, count in batch if seq_id not in drew)
    assert {"0", "1", "2", "3", "4", "long", "late"} == {seq_id for seq_id, _, _ in runner.batches[-1]}


def _steps(bench: Bench, count: int, each_s: float) -> list[Update]:
    updates = []
    for _ in range(count):
        updates += bench.engine.step()
        bench.engine.check_integrity()
        bench.now_s += each_s
    return updates


def test_who_waits_a_turn_for_a_slot_gets_it() -> None:
    """Rows of a popular adapter that would run for hours are preempted for another's, and both get their own tokens."""
    bench = Bench(slots=1)
    for index in range(3):
        bench.engine.add(sequence(f"popular{index}", [index], "a@1", max_new_tokens=300))
    updates = _steps(bench, 4, 1.0)
    bench.engine.add(sequence("rare", [7], "b@1", max_new_tokens=5))
    updates += _steps(bench, 11, 1.0)
    assert bench.engine.counters.preemptions == 0
    updates += _steps(bench, 14, 1.0)
    assert completion([7], "b", 5) == tokens(update for update in updates if update.seq_id == "rare")
    assert bench.engine.counters.preemptions == 3
    updates += [update for found in drain(bench.engine).values() for update in found]
    for index in range(3):
        assert completion([index], "a", 300) == tokens(u for u in updates if u.seq_id == f"popular{index}")


def test_who_waits_a_turn_for_a_kv_row_gets_it() -> None:
    """The rows that started last make room for a long one that is first in line; nobody's tokens change or repeat."""
    bench = Bench(kv_tokens=60)
    for index in range(3):
        bench.engine.add(sequence(str(index), [index], max_new_tokens=19))
    bench.engine.step()
    bench.engine.add(sequence("long", [9], max_new_tokens=39))
    updates = _steps(bench, 10, 1.2) + [u for found in drain(bench.engine).values() for u in found]
    assert bench.engine.counters.preemptions == 2
    assert completion([9], "", 39) == tokens(update for update in updates if update.seq_id == "long")
    assert completion([2], "", 19)[1:] == tokens(update for update in updates if update.seq_id == "2")


def test_everyone_gets_on_however_short_a_turn_is() -> None:
    """Three adapters on one slot, a clock that runs a turn a step, prompts of several chunks: all of them finish."""
    bench = Bench(slots=1)
    for index, name in enumerate("abc"):
        bench.engine.add(sequence(name, [index] * 20, f"{name}@1", max_new_tokens=6))
    updates: list[Update] = []
    for _ in range(300):
        updates += _steps(bench, 1, 10.0)
    assert not bench.engine.has_work
    assert bench.engine.counters.preemptions > 3
    for index, name in enumerate("abc"):
        assert completion([index] * 20, name, 6) == tokens(u for u in updates if u.seq_id == name)
