"""From a grammar's text to a matcher, by llguidance, under the limits that hold wherever one is compiled.

All that is computed of a grammar is bounded by fuel, not by time: a retry meets the same end. Knows no process and no
sequence.
"""

from __future__ import annotations

import json
from collections.abc import Collection

from llguidance import LLMatcher, LLParserLimits, LLTokenizer

from lorapool.shared.errors import InvalidRequest

LIMITS = LLParserLimits(
    max_items_in_row=1000,
    step_max_items=10_000,
    step_lexer_fuel=50_000,
    initial_lexer_fuel=500_000,
    max_lexer_states=10_000,
    max_grammar_size=50_000,
    verbose_errors=False,
)
# Tokens are the model's to choose, also where their text is certain: to find the usual ones, llguidance would spell all
# of a certain text anew in each step, however long it is.
_UNFORCED = '\n%llguidance {"no_forcing": true}\n'


class GrammarRefused(InvalidRequest):
    """A grammar is none, or asks for more than the limits leave it."""


def vocabulary(fast: str, eos_ids: Collection[int]) -> LLTokenizer:
    """Of a fast tokenizer's JSON text, all of whose ``eos_ids`` end an answer."""
    return LLTokenizer(fast, eos_token=sorted(eos_ids) or None)


def compiled(tokens: LLTokenizer, text: str) -> LLMatcher:
    """Raises GrammarRefused."""
    matcher = LLMatcher(tokens, unforced(text), log_level=0, limits=LIMITS)
    if matcher.is_error():
        raise GrammarRefused(f"the grammar is not served: {first_words(matcher.get_error())}")
    return matcher


def unforced(text: str) -> str:
    """The grammar, which is Lark text or JSON with such texts inside, with the choice of tokens left to the model."""
    if not text.startswith("{"):
        return text + _UNFORCED
    try:
        given = json.loads(text)
        for part in given["grammars"]:
            if part.get("lark_grammar"):
                part["lark_grammar"] += _UNFORCED
                break
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise GrammarRefused(f"the grammar is not served: {type(error).__name__}: {error}") from None
    return json.dumps(given)


def first_words(message: str) -> str:
    """Of what llguidance says, which may show the whole grammar: what is wrong and where."""
    if message.startswith("NoExtension"):
        return "no text fits it"
    message = message.removesuffix("<non-verbose/>")
    return " ".join(line.strip() for line in message.splitlines()[:3])[:400]
