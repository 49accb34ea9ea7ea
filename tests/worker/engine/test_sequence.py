"""Sequence: token bookkeeping, ends, batches."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from lorapool.shared.job import FinishReason
from lorapool.worker.engine.sequence import Batch, Status, Work
from tests.worker.tiny import sequence


def test_the_end_token_ends_and_is_counted() -> None:
    """An end token is the last of output_ids, unless it is to be ignored."""
    row, blind = sequence("a", [1], eos_ids=(8, 9)), sequence("b", [1], eos_ids=(9,), ignore_eos=True)
    row.append(9)
    blind.append(9)
    assert (row.finish_reason, row.output_ids, row.status) == (FinishReason.EOS_TOKEN, [9], Status.FINISHED)
    assert blind.finish_reason is None


def test_length_ends() -> None:
    """At max_new_tokens, and not before."""
    row, reasons = sequence("a", [1], max_new_tokens=2), []
    for token in (4, 5):
        row.append(token)
        reasons.append(row.finish_reason)
    assert [None, FinishReason.LENGTH] == reasons


@given(st.lists(st.integers(0, 9), min_size=1), st.lists(st.integers(0, 9)), st.data())
def test_tokens_are_those_of_prompt_and_output(prompt: list[int], output: list[int], data: st.DataObject) -> None:
    """Any range of tokens is that of the two lists, one behind the other."""
    row = sequence("a", prompt)
    row.output_ids = output
    both = prompt + output
    start = data.draw(st.integers(0, len(both)))
    count = data.draw(st.integers(0, len(both) - start))
    assert both[start : start + count] == row.tokens(start, count)


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(1, 3)), min_size=1, max_size=12))
def test_a_batch_has_one_segment_an_adapter_in_each_part(rows: list[tuple[int, int]]) -> None:
    """Parts are sorted by slot, hold every row once, one-token rows first."""
    works = []
    for index, (slot, count) in enumerate(rows):
        row = sequence(str(index), [1] * 3)
        row.slot = slot
        works.append(Work(row, 0, count))
    batch = Batch.of(works)
    for part, ones in ((batch.decode, True), (batch.prefill, False)):
        slots = [segment.slot for segment in part]
        assert sorted(set(slots)) == slots
        assert all((work.count == 1) == ones and work.sequence.slot == s.slot for s in part for work in s.works)
    assert sorted(str(i) for i in range(len(rows))) == sorted(work.sequence.seq_id for work in batch.works)
