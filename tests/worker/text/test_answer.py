"""Answer: what tokens add to a text, and where it ends."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lorapool.worker.text.answer import Added, Answer
from tests.fake_tokenizer import WordDetokenizer


def test_the_stop_string_ends_the_answer() -> None:
    """Its text is cut, its tokens all belong to the answer."""
    answer = Answer(WordDetokenizer(), ("7 8",))
    assert [Added(1, "5 "), Added(1, ""), Added(1, "")] == [answer.push([token]) for token in (5, 7, 8)]
    assert (answer.text, answer.stopped) == ("5 ", True)


def test_tokens_after_the_stop_string_are_no_part_of_it() -> None:
    """Neither those of the same push nor those of later ones, whatever their text is."""
    answer = Answer(WordDetokenizer(), ("7 8",))
    assert Added(3, "5 ") == answer.push([5, 7, 8, 9, 5])
    assert Added(0, "") == answer.push([6], last=True)
    assert "5 " == answer.text


def test_the_end_gives_the_held_rest() -> None:
    """With the last token what was held back is shown: no stop string came of it."""
    answer = Answer(WordDetokenizer(), ("4 5 6",))
    assert Added(1, "") == answer.push([4])
    assert Added(1, "4 5 ") == answer.push([5], last=True)
    assert "4 5 " == answer.text


def test_an_end_without_tokens_gives_the_held_rest_as_well() -> None:
    """As an engine may say it."""
    answer = Answer(WordDetokenizer(), ("4 5 6",))
    answer.push([4, 5])
    assert Added(0, "4 5 ") == answer.push([], last=True)


@given(st.lists(st.integers(0, 9), max_size=20), st.lists(st.integers(1, 4), min_size=20, max_size=20))
def test_it_does_not_matter_how_tokens_are_parted(tokens: list[int], sizes: list[int]) -> None:
    """One by one or several at a time: the same text, the same number of tokens, the same end."""
    single, parted = Answer(WordDetokenizer(), ("1 2", "3 ")), Answer(WordDetokenizer(), ("1 2", "3 "))
    counted = sum(single.push([token]).tokens for token in tokens)
    parts, rest = [], list(tokens)
    for size in sizes:
        parts.append(parted.push(rest[:size]).tokens)
        rest = rest[size:]
    assert counted == sum(parts)
    assert (single.text, single.stopped) == (parted.text, parted.stopped)


def test_a_token_without_text_is_an_error() -> None:
    """What was shown before stays."""

    class Broken(WordDetokenizer):
        def push(self, token_id: int) -> str:
            return super().push(token_id) if token_id < 9 else str(1 // 0)

    answer = Answer(Broken())
    answer.push([1])
    with pytest.raises(ZeroDivisionError):
        answer.push([9])
    assert "1 " == answer.text
