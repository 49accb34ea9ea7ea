"""A detokenizer, and a spelling, whose text is easy to foretell."""

from __future__ import annotations


class WordDetokenizer:
    """Shows each token as its number and a space."""

    def push(self, token_id: int) -> str:
        return f"{token_id} "


class WordSpelling:
    """The same, as bytes."""

    def of(self, token_id: int, *, first: bool = False) -> bytes:
        return f"{token_id} ".encode()

    def is_special(self, token_id: int) -> bool:
        return False
