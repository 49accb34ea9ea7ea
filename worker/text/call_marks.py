"""CallMarks: marks of tool calls that are tokens of their own in a tokenizer: a grammar and a detokenizer must know.

Knows no call.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from tokenizers import AddedToken
from tokenizers import Tokenizer as FastTokenizer

from lorapool.worker.text.call_syntax import HERMES
from lorapool.worker.text.response_template import ResponseTemplate


class CallMarks(NamedTuple):
    """``ids``: of marks that a grammar takes as a token, not as text; ``hidden``: those that a detokenizer would leave
    out as special, by id; ``beside``: tokens like those of a grammar that are no marks, and text of any answer."""

    ids: Mapping[str, int]
    hidden: Mapping[int, str]
    beside: tuple[int, ...] = ()


def call_marks(fast: FastTokenizer, template: ResponseTemplate | None) -> CallMarks:
    """Of Hermes' form, and of the model's own."""
    own = {i: token for i, token in fast.get_added_tokens_decoder().items() if _is_token(token)}
    marks = {
        token_id: token
        for token_id, token in own.items()
        if token.content in {HERMES.open, HERMES.close} or (template is not None and template.names(token.content))
    }
    return CallMarks(
        {token.content: token_id for token_id, token in marks.items()},
        {token_id: token.content for token_id, token in marks.items() if token.special},
        tuple(token_id for token_id, token in own.items() if token_id not in marks and not token.special),
    )


def _is_token(token: AddedToken) -> bool:
    """To llguidance, which takes what is special so, and what looks like a tag."""
    return bool(token.special) or (token.content[:1], token.content[-1:]) == ("<", ">")
