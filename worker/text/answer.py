"""Answer: the text of an answer, as its token ids come.

Two things hold text back: half a UTF-8 character (the detokenizer's work), and what may be the beginning of a stop
string (HeldText). A stop string ends the answer here: an engine knows tokens only, so that no two engines differ in
this. Knows no job and no batch.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple, Protocol

from lorapool.worker.text.held_text import HeldText


class Detokenizer(Protocol):
    """Turns token ids into text, a piece at a time, never giving half a character."""

    def push(self, token_id: int) -> str:
        """Return the text that became certain with this token; often one piece, sometimes nothing."""
        ...


class Added(NamedTuple):
    """What new tokens added: ``tokens`` of them belong to the answer; all, unless a stop string became whole."""

    tokens: int
    text: str


class Answer:
    """``text``: what may be shown so far; after the end, the whole answer, cut before a stop string."""

    def __init__(self, detokenizer: Detokenizer, stop: tuple[str, ...] = ()) -> None:
        self._detokenizer, self._held = detokenizer, HeldText(stop)

    @property
    def text(self) -> str:
        return self._held.visible

    @property
    def stopped(self) -> bool:
        """A stop string became whole: no token that comes after belongs to the answer."""
        return self._held.stopped

    def push(self, token_ids: Iterable[int], *, last: bool = False) -> Added:
        """Take new tokens; ``last``: no more will come, so that what was held back may be shown."""
        tokens, text = 0, ""
        for token_id in token_ids:
            if self.stopped:
                break
            text += self._held.push(self._detokenizer.push(token_id))
            tokens += 1
        return Added(tokens, text + self._held.flush() if last else text)
