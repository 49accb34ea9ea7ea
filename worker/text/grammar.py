"""From the form that an answer must have to a grammar, as llguidance reads it: JSON or Lark text.

Pure and quick: whether the grammar is one, and small enough to be served, is judged elsewhere (grammar_judge.py). Knows
no tokens.
"""

from __future__ import annotations

import json
from typing import Any

from llguidance import LLMatcher

from lorapool.shared.errors import InvalidRequest
from lorapool.shared.response_format import ResponseFormat

_JSON: Any = {
    "coerce_one_of": True,  # oneOf as anyOf: the whole answer is validated against the schema as it was given
    "lenient": False,
    "whitespace_flexible": True,
    "whitespace_pattern": r"( |\n {0,24})?",  # of a model that likes to write blanks, there must be an end
}


def grammar_of(form: ResponseFormat) -> str:
    """Raises InvalidRequest where a schema is no JSON object."""
    if form.kind in {"json_schema", "json_object"}:
        return of_schema(form.value if form.kind == "json_schema" else '{"type":"object"}')
    if form.kind == "regex":
        return LLMatcher.grammar_from_regex(form.value)
    return of_choice(json.loads(form.value)) if form.kind == "choice" else form.value


def of_schema(schema: str) -> str:
    """JSON that fits the schema, which is JSON itself."""
    try:
        return LLMatcher.grammar_from_json_schema(schema, overrides=_JSON)
    except ValueError as error:
        raise InvalidRequest(f"response_format: the schema is not read: {error}") from None


def of_choice(answers: list[str]) -> str:
    """One of these texts."""
    return "start: " + " | ".join(json.dumps(answer) for answer in answers)
