"""Sequence: text that is held back, token bookkeeping, ends, batches."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from lorapool.shared.job import FinishReason
from lorapool.worker.engine.sequence import Batch, HeldText, Status, Work
from tests.worker.tiny import sequence

LETTERS = st.text("ab", max_size=12)
STOPS = st.lists(st.text("ab", min_size=1, max_size=4), max_size=3).map(tuple)


def _shown(stop: tuple[str, ...], pieces: list[str]) -> tuple[list[str], HeldText]:
    held = HeldText(stop)
    return [held.push(piece) for piece in pieces], held


@given(STOPS, st.lists(LETTERS, max_size=8))
def test_text_is_cut_before_the_first_stop_string(stop: tuple[str, ...], pieces: list[str]) -> None:
    """Pushed in any pieces, the whole shown text ends where a stop string first became complete."""
    shown, held = _shown(stop, pieces)
    text, expected = "", None
    for piece in pieces:
        text += piece
        found = [text.find(word) for word in stop if word in text]
        if found and expected is None:
            expected = text[: min(found)]
    assert (text if expected is None else expected) == "".join(shown) + held.flush()
    assert held.stopped == (expected is not None)


@given(STOPS, st.lists(LETTERS, max_size=8), LETTERS)
def test_a_delta_never_shows_part_of_a_stop_string(stop: tuple[str, ...], pieces: list[str], more: str) -> None:
    """Whatever comes next, what has been shown is a beginning of the final text."""
    shown, held = _shown(stop, pieces)
    before = "".join(shown)
    final = before + held.push(more) + held.flush()
    assert final.startswith(before)
    assert held.visible == final
    assert not any(word in final for word in stop)


def test_text_that_cannot_become_a_stop_string_is_shown_at_once() -> None:
    """Only the possible beginning is held back, and given as soon as it cannot be one."""
    shown, _ = _shown(("END",), ["ab E", "N", "x"])
    assert shown == ["ab ", "", "ENx"]


def test_append_reports_the_stop_string() -> None:
    """The sequence ends with stop_sequence, its text cut, its tokens all there."""
    row = sequence("a", [1], stop=("7 8",))
    shown = [row.append(token, None, frozenset()) for token in (5, 7, 8)]
    assert shown == ["5 ", "", ""]
    assert (row.text, row.output_ids) == ("5 ", [5, 7, 8])
    assert (row.finish_reason, row.status) == (FinishReason.STOP_SEQUENCE, Status.FINISHED)


def test_the_end_token_ends_and_is_counted() -> None:
    """An end token is the last of output_ids, unless it is to be ignored."""
    row, blind = sequence("a", [1]), sequence("b", [1], ignore_eos=True)
    row.append(9, -1.5, frozenset({9}))
    blind.append(9, None, frozenset({9}))
    assert (row.finish_reason, row.output_ids, row.logprobs) == (FinishReason.EOS_TOKEN, [9], [-1.5])
    assert blind.finish_reason is None


def test_length_ends_and_gives_the_held_rest() -> None:
    """At max_new_tokens what was held back is shown: no stop string came of it."""
    row = sequence("a", [1], max_new_tokens=2, stop=("4 5 6",))
    assert row.append(4, None, frozenset()) == ""
    assert row.append(5, None, frozenset()) == "4 5 "
    assert row.finish_reason is FinishReason.LENGTH


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
