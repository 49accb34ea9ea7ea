"""A batch's file, cut into lines wherever its pieces end, and what is left of it to be asked."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lorapool.producer.batches.content import Reading
from lorapool.producer.batches.line import MAX_LINE_BYTES, Fault, lines_of, parse
from lorapool.producer.batches.source import Source
from tests.producer.batches.conftest import jsonl, line
from tests.producer.batches.plain_door import ENDPOINT


class Pieces(io.BytesIO):
    """Reads of these sizes, again and again."""

    def __init__(self, content: bytes, sizes: list[int]) -> None:
        super().__init__(content)
        self._sizes = self._round(sizes)

    def _round(self, sizes: list[int]) -> Iterator[int]:
        while True:
            yield from sizes

    def read(self, _: int | None = -1) -> bytes:
        return super().read(next(self._sizes))


def reading(content: bytes, *sizes: int) -> Reading:
    return Reading("here", Pieces(content, list(sizes) or [1 << 20]))


LINES = st.lists(st.binary(max_size=20).map(lambda raw: raw.replace(b"\n", b" ")), max_size=20)


@given(lines=LINES, sizes=st.lists(st.integers(3, 30), min_size=1, max_size=5), end=st.sampled_from([b"", b"\n"]))
@settings(max_examples=100, deadline=None)
def test_lines_are_the_same_whatever_the_pieces(lines: list[bytes], sizes: list[int], end: bytes) -> None:
    """Each that says something, by its number; a last one without an end too."""
    content = b"\n".join(lines) + end
    expected = [(n, text.strip()) for n, text in enumerate(content.removeprefix(b"\xef\xbb\xbf").split(b"\n"), 1)]
    assert [(n, text) for n, text in expected if text] == list(lines_of(reading(content, *sizes)))


def test_a_line_without_end_is_not_held() -> None:
    """One byte more than a line may have ends the reading, whatever comes behind."""
    endless = reading(b"x" * (3 * MAX_LINE_BYTES))
    with pytest.raises(Fault, match="4,194,304"):
        list(lines_of(endless))
    assert endless._file.tell() <= MAX_LINE_BYTES + (1 << 20)


def test_what_is_answered_is_left_out() -> None:
    """By its bit: lines 0, 8 and 9 of twelve; empty lines have no number."""
    content = b"\n\n".join(jsonl([line(f"q{n}")]) for n in range(12))
    source = Source(reading(content), ENDPOINT, bytes([0b10000000, 0b11000000]))
    left = [*source.take(3), *source.take(100)]
    assert [(n, f"q{n}") for n in (1, 2, 3, 4, 5, 6, 7, 10, 11)] == [(each.number, each.custom_id) for each in left]
    assert [] == source.take(1)


PLAIN = st.none() | st.booleans() | st.integers() | st.text(max_size=9)
ANY = st.recursive(
    PLAIN, lambda of: st.lists(of, max_size=3) | st.dictionaries(st.text(), of, max_size=3), max_leaves=5
)


@given(ANY)
@settings(max_examples=60, deadline=None)
def test_any_json_is_a_line_or_a_fault(value: object) -> None:
    """And nothing else comes of it."""
    with pytest.raises(Fault):
        parse(json.dumps(value).encode(), 0, ENDPOINT)
    with pytest.raises(Fault):
        parse(json.dumps({**line("a"), "custom_id": value if not isinstance(value, str) else ""}).encode(), 0, ENDPOINT)
