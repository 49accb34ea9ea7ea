"""The tokens that the fake engines draw, as text: a byte each for the first 256, then three letters; the last one ends
an answer.
"""

from __future__ import annotations

from functools import cache

from llguidance import LLTokenizer, TokenizerWrapper

SIZE = 1000
END = SIZE - 1


class _Bytes:
    """What llguidance asks of a tokenizer."""

    eos_token_id, bos_token_id = END, None
    special_token_ids = (END,)

    def __init__(self) -> None:
        letters = [bytes([97 + at // 676, 97 + at // 26 % 26, 97 + at % 26]) for at in range(SIZE - 257)]
        self.tokens = [*(bytes([at]) for at in range(256)), *letters, b"<end>"]

    def __call__(self, text: bytes) -> list[int]:
        return list(text)


@cache
def vocabulary() -> LLTokenizer:
    return LLTokenizer(TokenizerWrapper(_Bytes()))


def spelled(token_ids: list[int]) -> str:
    """The text of tokens, without an end."""
    return b"".join(_Bytes().tokens[token] for token in token_ids if token != END).decode()
