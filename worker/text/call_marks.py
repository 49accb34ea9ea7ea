"""CallMarks: marks of tool calls that are tokens of their own in a tokenizer: a grammar and a detokenizer must know.

Knows no call.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from tokenizers import Tokenizer as FastTokenizer

from lorapool.worker.text.call_syntax import HERMES
from lorapool.worker.text.response_template import ResponseTemplate


class CallMarks(NamedTuple):
    """``ids``: of marks that a grammar takes as a token, not as text; ``hidden``: those that a detokenizer would leave
    out as special, by id."""

    ids: Mapping[str, int]
    hidden: Mapping[int, str]


def call_marks(fast: FastTokenizer, template: ResponseTemplate | None) -> CallMarks:
    """Of Hermes' form, and of the model's own."""
    added = fast.get_added_tokens_decoder()
    marks = {
        token_id: token
        for token_id, token in added.items()
        if token.content in {HERMES.open, HERMES.close} or (template is not None and template.names(token.content))
    }
    own = {t.content: i for i, t in marks.items() if t.special or (t.content[:1], t.content[-1:]) == ("<", ">")}
    return CallMarks(own, {i: t.content for i, t in marks.items() if t.special})
