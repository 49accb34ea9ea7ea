"""Splicer: one answer that never repeats, out of the deltas of several attempts."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from typing import NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lorapool.producer.client.stream import Splicer, TextDelta
from lorapool.shared.job import FinishReason, More, Result, Timings, TokenLogprob, Usage
from lorapool.shared.queue.protocol import StreamItem
from lorapool.shared.tools import ToolCall, ToolCallDelta

TEXT = "the runway is eighteen months at this burn"


class Token(NamedTuple):
    """What a token adds to an answer."""

    id: int
    text: str = ""
    call: tuple[int, str] | None = None  # index, arguments


def logprob(token: Token) -> TokenLogprob:
    return TokenLogprob(id=token.id, text=token.text.encode(), logprob=-0.5)


def attempt(tokens: list[Token], cuts: list[int]) -> list[tuple[int, str, tuple[int, ...], More]]:
    """Its deltas, cut at the given places; a call's first piece has its id and name."""
    edges = sorted({0, len(tokens), *(cut % (len(tokens) + 1) for cut in cuts)})
    begun: set[int] = set()
    deltas = []
    for start, end in pairwise(edges):
        part, calls = tokens[start:end], []
        for index, arguments in (token.call for token in part if token.call):
            opening = {} if index in begun else {"id": f"call_{index}", "name": f"f{index}"}
            calls.append(ToolCallDelta(index=index, arguments=arguments, **opening))
            begun.add(index)
        more = More(tuple(map(logprob, part)), tuple(calls))
        deltas.append((start, "".join(token.text for token in part), tuple(token.id for token in part), more))
    return deltas


def result(tokens: list[Token]) -> Result:
    """As it is stored."""
    return Result(
        job_id="0.j", text="".join(token.text for token in tokens), finish_reason=FinishReason.LENGTH,
        usage=Usage(prompt_tokens=1, completion_tokens=len(tokens)), timings=Timings(), adapter="a@1", digest="",
        agent="ada", attempts=1, worker="w", device="cpu", dtype="float32", seed=1, resident=True,
        token_ids=tuple(token.id for token in tokens), token_logprobs=tuple(map(logprob, tokens)),
        tool_calls=tuple(ToolCall(id=f"call_{at}", name=f"f{at}", arguments=text) for at, text in calls(tokens)),
    )  # fmt: skip


def calls(tokens: list[Token]) -> list[tuple[int, str]]:
    """Whole, by index."""
    whole: dict[int, str] = {}
    for index, arguments in (token.call for token in tokens if token.call):
        whole[index] = whole.get(index, "") + arguments
    return sorted(whole.items())


Died = tuple[list[int], int, bool]
"""Where an attempt was cut, after how many pieces it died, and whether an entry says that the next one begins."""


class Reader:
    """Who shows what it is given, and clears all of it when it is told to."""

    def __init__(self) -> None:
        self.splicer = Splicer()
        self.said = TextDelta("")
        self.restarts = 0

    def take(self, delta: TextDelta | None) -> None:
        if delta is None:
            return
        if delta.restart:
            self.restarts += 1
            self.said = TextDelta("")
        assert len(self.said.token_ids) == delta.offset
        assert len(delta.token_ids) == len(delta.more.logprobs)
        self.said = replace(
            delta,
            text=self.said.text + delta.text,
            token_ids=self.said.token_ids + delta.token_ids,
            more=self.said.more.joined(delta.more),
        )

    def hear(self, number: int, deltas: list[tuple[int, str, tuple[int, ...], More]]) -> None:
        for delta in deltas:
            self.take(self.splicer.delta(number, *delta))

    def has(self, tokens: list[Token]) -> None:
        """All of them, each once."""
        assert "".join(token.text for token in tokens) == self.said.text
        assert tuple(token.id for token in tokens) == self.said.token_ids
        assert tuple(map(logprob, tokens)) == self.said.more.logprobs
        pieces = self.said.more.tool_calls
        openings = [(call.index, call.id, call.name) for call in pieces if call.id or call.name]
        assert sorted((at, f"call_{at}", f"f{at}") for at, _ in calls(tokens)) == sorted(openings)
        for index, arguments in calls(tokens):
            assert arguments == "".join(call.arguments for call in pieces if call.index == index)


LETTERS = st.text("ab {", max_size=2)
SAYS = st.tuples(LETTERS, st.none()) | st.tuples(st.just(""), st.tuples(st.integers(0, 2), LETTERS))


@st.composite
def answers(draw: st.DrawFn) -> list[Token]:
    """Of text, calls that are opened in order, and tokens that say nothing yet."""
    opened, tokens = 0, []
    for token_id, (text, call) in enumerate(draw(st.lists(SAYS, max_size=12))):
        index = None if call is None else min(call[0], opened)
        tokens.append(Token(token_id, text, None if call is None or index is None else (index, call[1])))
        opened = opened if index is None else max(opened, index + 1)
    return tokens


CUTS = st.lists(st.integers(0, 99), max_size=6)
DIED = st.tuples(CUTS, st.integers(0, 6), st.booleans())


@given(answers(), st.lists(DIED, max_size=4), CUTS, st.integers(0, 6))
def test_attempts_that_agree_repeat_nothing(tokens: list[Token], died: list[Died], last: list[int], kept: int) -> None:
    """Wherever each was cut and died, and whatever of the last was trimmed at its end: the text, the calls of tools,
    the tokens and what is told of them come once each and in order, and nothing is void."""
    reader = Reader()
    for number, (cuts, pieces, marked) in enumerate(died, 1):
        if marked:  # the restart entry may have been trimmed
            reader.splicer.restart(number)
        reader.hear(number, attempt(tokens, cuts)[:pieces])
    reader.hear(len(died) + 1, attempt(tokens, last)[:kept])
    reader.take(reader.splicer.rest(result(tokens)))
    reader.has(tokens)
    assert 0 == reader.restarts
    assert reader.splicer.rest(result(tokens)) is None


@given(st.lists(st.tuples(answers(), DIED), max_size=3), answers(), CUTS)
def test_what_differs_is_void(other: list[tuple[list[Token], Died]], tokens: list[Token], last: list[int]) -> None:
    """Attempts of another text or other calls: at the end there is the last one's answer alone."""
    reader = Reader()
    for number, (said, (cuts, pieces, _)) in enumerate(other, 1):
        reader.splicer.restart(number)
        reader.hear(number, attempt(said, cuts)[:pieces])
    reader.splicer.restart(len(other) + 1)
    reader.hear(len(other) + 1, attempt(tokens, last))
    reader.take(reader.splicer.rest(result(tokens)))
    assert "".join(token.text for token in tokens) == reader.said.text
    for index, arguments in calls(tokens):
        assert arguments == "".join(call.arguments for call in reader.said.more.tool_calls if call.index == index)


def test_a_retry_with_other_text_says_restart_once() -> None:
    """What cannot be continued is voided by one delta, which carries the new answer from its beginning."""
    splicer = Splicer()
    splicer.delta(1, 0, "one two", (1, 2))
    splicer.restart(2)
    assert splicer.delta(2, 0, "one", (1,)) is None
    assert TextDelta("one six", (1, 6), attempt=2, offset=0, restart=True) == splicer.delta(2, 1, " six", (6,))
    assert TextDelta(" ten", (7,), attempt=2, offset=2) == splicer.delta(2, 2, " ten", (7,))


@pytest.mark.parametrize("change", [{"name": "g"}, {"id": "call_9"}, {"arguments": '{"b'}])
def test_a_retry_with_another_call_says_restart(change: dict[str, str]) -> None:
    """Another function, another id, other arguments."""
    opened = ToolCallDelta(index=0, id="call_0", name="f", arguments='{"a')
    splicer, other = Splicer(), opened.model_copy(update=change)
    splicer.delta(1, 0, "", (1,), More((), (opened,)))
    splicer.restart(2)
    begun = splicer.delta(2, 0, "", (1,), More((), (other,)))
    assert TextDelta("", (1,), attempt=2, restart=True, more=More((), (other,))) == begun


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
    assert splicer.rest(result([Token(1, "one "), Token(2, "two")])) is None


def test_a_late_delta_of_an_older_attempt_is_dropped() -> None:
    """An attempt that lost its lease cannot speak into the next one's text."""
    splicer = Splicer()
    splicer.restart(2)
    assert splicer.delta(1, 0, "stale", (1,)) is None
    assert splicer.text == ""


@pytest.mark.parametrize(("stored", "expected"), [("ab", "b"), ("a", None), ("b", "b")])
def test_the_stored_text_completes_the_stream(stored: str, expected: str | None) -> None:
    """What no delta brought comes from the stored result."""
    splicer = Splicer()
    splicer.delta(1, 0, "a", (1,))
    rest = splicer.rest(result([Token(1, stored)]))
    assert expected == (None if rest is None else rest.text)
