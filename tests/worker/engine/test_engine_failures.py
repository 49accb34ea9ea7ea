"""Engine: a row, the device, or its memory: who is to blame for a step that fails, and what it costs the others."""

from __future__ import annotations

import pytest

from lorapool.worker.engine.continuous_batch import TURN_S
from lorapool.worker.engine.port import EngineSick, OutOfMemory
from lorapool.worker.engine.scheduler import GROW_AFTER
from lorapool.worker.engine.sequence import Batch, Drawn
from tests.fake_runner import FakeRunner, completion
from tests.worker.engine.engine_bench import Bench
from tests.worker.tiny import drain, sequence, tokens


class FailingRunner(FakeRunner):
    """Rows of ``nan`` draw no number, rows of ``greedy`` never find memory; a step has room for ``rows_fit`` rows and
    ``tokens_fit`` tokens, the KV cache for a row while ``kv_fits``; ``sick`` is what the probe raises."""

    sick: Exception | None = None
    nan: frozenset[str] = frozenset()
    greedy: frozenset[str] = frozenset()
    rows_fit = tokens_fit = 1 << 20
    kv_fits = True
    probes = 0

    def reserve(self, seq_id: str, tokens: int) -> bool:
        return self.kv_fits and super().reserve(seq_id, tokens)

    def step(self, batch: Batch) -> list[Drawn]:
        ids = {work.sequence.seq_id for work in batch.works}
        if len(ids) > self.rows_fit or sum(work.count for work in batch.works) > self.tokens_fit or ids & self.greedy:
            raise OutOfMemory(f"no room for {sorted(ids)}")
        return [
            Drawn(row.seq_id, -1, error=FloatingPointError("not numbers")) if row.seq_id in self.nan else row
            for row in super().step(batch)
        ]

    def probe(self) -> None:
        self.probes += 1
        if self.sick is not None:
            raise self.sick


def _bench(*seq_ids: str, new: int = 3, prefill_tokens: int = 8) -> Bench:
    bench = Bench(kind=FailingRunner, prefill_tokens=prefill_tokens)
    for index, seq_id in enumerate(seq_ids):
        bench.engine.add(sequence(seq_id, [index], max_new_tokens=new))
    return bench


def _want(index: int, new: int = 3) -> list[int]:
    return completion([index], "", new)


def test_rows_that_all_fail_on_a_sound_device_fail_each_for_itself() -> None:
    """The device was asked once; each row ends with an error, and who comes later is served."""
    bench = _bench("a", "b", "c")
    bench.runner.poison = {"a", "b", "c"}
    seen = drain(bench.engine)
    assert ["poisonous ['a']", "poisonous ['b']", "poisonous ['c']"] == sorted(str(u.error) for [u] in seen.values())
    assert 1 == bench.runner.probes
    bench.engine.add(sequence("later", [2], max_new_tokens=3))
    assert _want(2) == tokens(drain(bench.engine)["later"])


@pytest.mark.parametrize("how", ["raise", "not numbers"])
def test_rows_that_all_fail_on_a_sick_device_are_not_to_blame(how: str) -> None:
    """EngineSick says what the probe and the first row said; no row has failed, all are still inside."""
    bench = _bench("a", "b", "c")
    if how == "raise":
        bench.runner.poison = {"a", "b", "c"}
    else:
        bench.runner.nan = frozenset({"a", "b", "c"})
    bench.runner.sick = RuntimeError("illegal memory access")
    with pytest.raises(EngineSick, match=r"illegal memory access.*rows failed with (RuntimeError|FloatingPointError)"):
        bench.engine.step()
    assert {"a", "b", "c"} == bench.runner.reserved
    bench.engine.check_integrity()


def test_one_row_that_fails_alone_beside_others_asks_no_device() -> None:
    """Others succeeded in the same step: it is the row, whatever the probe would say."""
    bench = _bench("a", "b", "nan")
    bench.runner.poison, bench.runner.nan = {"b"}, frozenset({"nan"})
    bench.runner.sick = RuntimeError("never asked")
    seen = drain(bench.engine)
    assert [RuntimeError, FloatingPointError] == [type(seen["b"][0].error), type(seen["nan"][0].error)]
    assert _want(0) == tokens(seen["a"])
    assert 0 == bench.runner.probes


def test_rows_of_bad_numbers_on_a_sound_device_fail_alone() -> None:
    """All of them, each with its error, after one look at the device."""
    bench = _bench("a", "b")
    bench.runner.nan = frozenset({"a", "b"})
    seen = drain(bench.engine)
    assert all(isinstance(updates[0].error, FloatingPointError) for updates in seen.values())
    assert 1 == bench.runner.probes


def test_for_want_of_memory_fewer_rows_go_on_and_nobody_fails() -> None:
    """Four rows where one fits: the rest waits for its turn, and all get the tokens of a calm run."""
    bench = _bench("a", "b", "c", "d", new=6)
    bench.runner.rows_fit = 1
    seen = drain(bench.engine)
    for index, seq_id in enumerate("abcd"):
        assert _want(index, 6) == tokens(seen[seq_id])
    counters = bench.engine.counters
    assert 3 == counters.shrinks  # at four rows, and at each two of them
    assert 3 == counters.preemptions
    assert 0 == bench.runner.probes
    assert 1 == max(len(batch) for batch in bench.runner.batches)


def test_for_want_of_memory_prompts_come_in_shorter_pieces() -> None:
    """A piece of the whole budget does not fit: it is halved until it does, and the answer is the same."""
    bench = _bench(prefill_tokens=128)
    bench.runner.tokens_fit = 40
    prompt = list(range(200))
    bench.engine.add(sequence("long", prompt, max_new_tokens=3))
    seen = drain(bench.engine)
    assert completion(prompt, "", 3) == tokens(seen["long"])
    pieces = [batch[0][2] for batch in bench.runner.batches]
    assert 32 == max(pieces)
    assert 200 + 2 == sum(pieces)


def test_a_row_that_never_finds_memory_fails_for_that_alone() -> None:
    """Beside others, and when it is the only one; pieces are never shorter than they may be."""
    bench = _bench("a", "greedy", "c", new=40)
    bench.runner.greedy = frozenset({"greedy"})
    seen = drain(bench.engine)
    assert isinstance(seen["greedy"][-1].error, OutOfMemory)
    for index, seq_id in ((0, "a"), (2, "c")):
        assert _want(index, 40) == tokens(seen[seq_id])
    bench.runner.tokens_fit = 0
    bench.engine.add(sequence("alone", [1] * 100, max_new_tokens=3))
    [update] = drain(bench.engine)["alone"]
    assert isinstance(update.error, OutOfMemory)


def test_rows_come_back_when_memory_has_sufficed_for_a_while() -> None:
    """After some dozens of good steps, twice as many are tried, up to all of them."""
    bench = _bench("a", "b", "c", "d", new=4 * GROW_AFTER)
    bench.runner.rows_fit = 1
    for _ in range(4):
        bench.engine.step()
    bench.runner.rows_fit = 1 << 20
    rows = []
    for _ in range(3 * GROW_AFTER):
        bench.engine.step()
        rows.append(len(bench.runner.batches[-1]))
    assert [1, 2, 4] == sorted(set(rows))
    assert rows == sorted(rows)
    drain(bench.engine)


def test_a_row_for_which_there_will_be_no_memory_does_not_wait_for_ever() -> None:
    """Nothing runs that could give its KV row back: after a turn it fails, and may find memory elsewhere; while others
    run it waits."""
    bench = _bench("runs", new=1000)
    bench.engine.step()
    bench.runner.kv_fits = False
    bench.engine.add(sequence("waits", [2], max_new_tokens=3))
    bench.engine.step()
    bench.now_s += TURN_S / 2
    assert {"runs"} == {update.seq_id for update in bench.engine.step()}
    bench.engine.abort("runs")
    bench.engine.add(sequence("too", [3], max_new_tokens=3))
    for _ in range(3):
        assert not bench.engine.step()
    bench.now_s += TURN_S
    updates = bench.engine.step()
    assert [("waits", OutOfMemory), ("too", OutOfMemory)] == [(u.seq_id, type(u.error)) for u in updates]
    assert not bench.engine.has_work
