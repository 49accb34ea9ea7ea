"""A detokenizer whose text is easy to foretell."""

from __future__ import annotations


class WordDetokenizer:
    """Shows each token as its number and a space."""

    def push(self, token_id: int) -> str:
        return f"{token_id} "
