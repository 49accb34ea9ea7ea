"""Splicer: one text that never repeats, out of the deltas of several attempts."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lorapool.producer.client.stream import Splicer, TextDelta
from lorapool.shared.queue.protocol import StreamItem

TEXT = "the runway is eighteen months at this burn"


def _pieces(text: str, cuts: list[int]) -> list[tuple[int, str]]:
    """One character a token; cut at the given places: (offset, text)."""
    edges = sorted({0, len(text), *(cut % (len(text) + 1) for cut in cuts)})
    return [(start, text[start:end]) for start, end in pairwise(edges)]


def _ids(offset: int, text: str) -> tuple[int, ...]:
    return tuple(range(offset, offset + len(text)))


@given(st.lists(st.integers(0, 99)), st.lists(st.integers(0, 99)), st.integers(0, 99), st.booleans())
def test_a_retry_with_the_same_text_repeats_nothing(
    first: list[int], second: list[int], died: int, marked: bool
) -> None:
    """Whatever the cuts and wherever the first attempt died, text and tokens come once each and in order."""
    splicer, got = Splicer(), []
    for offset, text in _pieces(TEXT, first)[: died % 12]:
        got.append(splicer.delta(1, offset, text, _ids(offset, text)))
    if marked:  # the restart entry may have been trimmed
        splicer.restart(2)
    for offset, text in _pieces(TEXT, second):
        got.append(splicer.delta(2, offset, text, _ids(offset, text)))
    deltas = [delta for delta in got if delta is not None]
    assert "".join(delta.text for delta in deltas) == TEXT
    assert list(range(len(TEXT))) == [token for delta in deltas for token in delta.token_ids]
    assert not any(delta.restart for delta in deltas)
    assert splicer.rest(TEXT) is None


def test_a_retry_with_other_text_says_restart_once() -> None:
    """Text that cannot be continued is voided by one delta, which carries the new text from its beginning."""
    splicer = Splicer()
    splicer.delta(1, 0, "one two", (1, 2))
    splicer.restart(2)
    assert splicer.delta(2, 0, "one", (1,)) is None
    assert TextDelta("one six", (6,), attempt=2, offset=1, restart=True) == splicer.delta(2, 1, " six", (6,))
    assert TextDelta(" ten", (7,), attempt=2, offset=2) == splicer.delta(2, 2, " ten", (7,))


def test_an_attempt_that_was_given_back_repeats_nothing() -> None:
    """It begins again under the same number, as its entry says: what was handed out is skipped."""
    splicer = Splicer()
    items = [
        StreamItem("1-0", "delta", 1, 0, "one ", (1,)),
        StreamItem("2-0", "restart", 1),
        StreamItem("3-0", "delta", 1, 0, "one ", (1,)),
        StreamItem("4-0", "delta", 1, 1, "two", (2,)),
    ]
    assert ["one ", "two"] == [delta.text for item in items if (delta := splicer.take(item)) is not None]
    assert splicer.rest("one two") is None


def test_a_late_delta_of_an_older_attempt_is_dropped() -> None:
    """An attempt that lost its lease cannot speak into the next one's text."""
    splicer = Splicer()
    splicer.restart(2)
    assert splicer.delta(1, 0, "stale", (1,)) is None
    assert splicer.text == ""


@pytest.mark.parametrize(("stored", "expected"), [("ab", "b"), ("a", None)])
def test_the_stored_text_completes_the_stream(stored: str, expected: str | None) -> None:
    """What no delta brought comes from the stored result."""
    splicer = Splicer()
    splicer.delta(1, 0, "a", (1,))
    rest = splicer.rest(stored)
    assert expected == (None if rest is None else rest.text)
