"""ToldTokens: an answer's tokens as they are told of to who asked for log probabilities: with their bytes.

The engine knows ids alone; this is made above it, of one answer, in order. Knows no job.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, TypeAlias

from lorapool.shared.job import TokenLogprob

Alternatives: TypeAlias = Sequence[tuple[int, float]]


class Spelling(Protocol):
    """Tokens to bytes."""

    def of(self, token_id: int, *, first: bool = False) -> bytes:
        """``first``: no text of the answer is before it."""
        ...

    def is_special(self, token_id: int) -> bool:
        """No part of the text."""
        ...


class ToldTokens:
    """``all``: what was told so far."""

    def __init__(self, spelling: Spelling) -> None:
        self._spelling = spelling
        self._first = True
        self.all: list[TokenLogprob] = []

    def push(
        self, token_ids: Sequence[int], logprobs: Sequence[float], top: Sequence[Alternatives]
    ) -> tuple[TokenLogprob, ...]:
        """The next tokens: one log probability each; ``top``: one each, or none."""
        told = []
        for place, (token_id, logprob) in enumerate(zip(token_ids, logprobs, strict=True)):
            beside = tuple(self._token(*one) for one in top[place]) if top else ()
            told.append(self._token(token_id, logprob, beside))
            self._first = self._first and self._spelling.is_special(token_id)
        self.all += told
        return tuple(told)

    def _token(self, token_id: int, logprob: float, top: tuple[TokenLogprob, ...] = ()) -> TokenLogprob:
        """Not validated: twenty of them a token would take the loop more time than all else."""
        text = self._spelling.of(token_id, first=self._first)
        return TokenLogprob.model_construct(id=token_id, text=text, logprob=logprob, top=top)
