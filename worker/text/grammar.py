"""From the form that an answer must have to a grammar: Lark text, as llguidance reads it.

Pure and quick: whether the grammar is one, and small enough to be served, is judged elsewhere (grammar_judge.py). Knows
no tokens.
"""

from __future__ import annotations

import json
from typing import Any

from llguidance import regex_to_lark

from lorapool.shared.errors import InvalidRequest
from lorapool.shared.response_format import ResponseFormat

_OPTIONS = {
    "coerce_one_of": True,  # oneOf as anyOf: the whole answer is validated against the schema as it was given
    "lenient": True,  # what it leaves out is judged by its warnings
    "whitespace_pattern": r"( |\n {0,24})?",  # of a model that likes to write blanks, there must be an end
}


def grammar_of(form: ResponseFormat) -> str:
    """Raises InvalidRequest where a schema is no JSON object."""
    if form.kind == "json_schema":
        return of_schema(json.loads(form.value))
    if form.kind == "json_object":
        return of_schema({"type": "object"})
    if form.kind == "regex":
        return of_regex(form.value)
    return of_choice(json.loads(form.value)) if form.kind == "choice" else form.value


def of_schema(schema: Any) -> str:
    """JSON that fits the schema."""
    return f"start: {json_rule(schema)}\n"


def json_rule(schema: Any) -> str:
    """What stands for such JSON in a rule of a larger grammar."""
    if not isinstance(schema, dict):
        raise InvalidRequest(f"response_format: a schema is a {type(schema).__name__}, expected an object")
    return "%json " + json.dumps({**schema, "x-guidance": _OPTIONS})


def of_regex(expression: str) -> str:
    """Text that the whole expression matches."""
    return f"start: /{regex_to_lark(expression)}/\n"


def of_choice(answers: list[str]) -> str:
    """One of these texts."""
    return "start: ANSWER\nANSWER: " + " | ".join(json.dumps(answer) for answer in answers) + "\n"
