"""HeldText: what is held back, and where a stop string cuts."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from lorapool.worker.text.held_text import HeldText

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
