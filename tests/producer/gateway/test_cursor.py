"""A stream broken off anywhere is gone on with nothing twice and nothing left out."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from lorapool.producer.gateway.cursor import Cursor, Piece, Place, places_of
from lorapool.shared.job import FinishReason, Result, Timings, TokenLogprob, Usage
from lorapool.shared.tools import ToolCall, ToolCallDelta

CALLS = (ToolCall(id="a", name="look", arguments='{"at": 1}'), ToolCall(id="b", name="go", arguments="{}"))
TEXT = "Some text, in pieces."


def result(text: str = TEXT, calls: tuple[ToolCall, ...] = CALLS) -> Result:
    tokens = tuple(TokenLogprob(id=index, text=letter.encode(), logprob=-1.0) for index, letter in enumerate(text))
    return Result(
        job_id="0.j",
        text=text,
        finish_reason=FinishReason.EOS_TOKEN,
        usage=Usage(prompt_tokens=1, completion_tokens=1),
        timings=Timings(),
        adapter="cfo@1",
        digest="d",
        agent="a",
        attempts=1,
        worker="w",
        device="cpu",
        dtype="float32",
        seed=1,
        resident=True,
        token_logprobs=tokens,
        tool_calls=calls,
    )


def pieces(cuts: list[int]) -> list[Piece]:
    """The same answer cut anew: text and tokens at those places, calls letter by letter where there is a cut."""
    places = sorted({0, len(TEXT), *(cut % len(TEXT) for cut in cuts)})
    tokens = result().token_logprobs or ()
    found = [Piece(TEXT[a:b], tokens[a:b]) for a, b in pairwise(places)]
    for index, call in enumerate(CALLS):
        step = max(1, len(cuts))
        found.append(Piece(calls=(ToolCallDelta(index=index, id=call.id, name=call.name),)))
        parts = (call.arguments[at : at + step] for at in range(0, len(call.arguments), step))
        found += [Piece(calls=(ToolCallDelta(index=index, arguments=part),)) for part in parts]
    return found


def joined(read: list[Piece]) -> tuple[str, list[int], list[tuple[str, str]]]:
    text = "".join(piece.text for piece in read)
    calls: dict[int, list[str]] = {}
    for delta in (delta for piece in read for delta in piece.calls):
        call = calls.setdefault(delta.index, ["", ""])
        call[0] += delta.name
        call[1] += delta.arguments
    return text, [token.id for piece in read for token in piece.logprobs], [tuple(call) for call in calls.values()]  # type: ignore[misc]


@given(st.lists(st.integers(0, 100), max_size=8), st.lists(st.integers(0, 100), max_size=8), st.integers(0, 60))
def test_broken_off_anywhere(first: list[int], second: list[int], broken: int) -> None:
    """Read some of it as it was cut at first, the rest as it is cut after a retry: together it is the answer."""
    before = Cursor()
    read = [before.take(piece) for piece in pieces(first)[:broken]]
    [place] = places_of(str(before.place), 1)
    after = Cursor(place)
    read += [after.take(piece) for piece in pieces(second)[:broken]]
    read.append(after.rest(result()))
    want = [(call.name, call.arguments) for call in CALLS]
    assert (TEXT, list(range(len(TEXT))), want) == joined(read)


def test_an_end_is_told_once() -> None:
    """Who has read why it ended is not told again."""
    cursor = Cursor()
    cursor.rest(result())
    assert cursor.end()
    again = Cursor(places_of(str(cursor.place), 1)[0])
    assert not again.rest(result())
    assert not again.end()


def test_a_place_is_as_it_was_written() -> None:
    """Of several answers each has its own."""
    assert [Place(1, 2, 3), Place(4, 5, 6, ended=True)] == places_of("1.2.3,4.5.6e", 2)
