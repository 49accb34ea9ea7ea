"""The fields of a request's body: which are known, which say nothing, which are refused by name.

A null is a field that is not there, as in OpenAI's API. Knows no field of its own.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from difflib import get_close_matches
from typing import Any

from lorapool.producer.gateway.errors import ApiError, invalid

Neutral = Callable[[Any], bool]


def object_of(body: bytes) -> dict[str, Any]:
    """The JSON object that a body is. Raises ApiError."""
    try:
        value = json.loads(body, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        why = "nested too deeply" if isinstance(error, RecursionError) else f"{error}"
        raise invalid(f"the body is not JSON: {why}", code="invalid_json") from None
    if not isinstance(value, dict):
        raise invalid(f"the body is {shown(value)}: expected a JSON object", code="invalid_json")
    if b"\\ud" in body.lower():
        _check_text(value)
    return value


def _check_text(value: dict[str, Any]) -> None:
    """What cannot be sent back is not taken in."""
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError as error:
        lone = error.object[error.start]
        raise invalid(f"the body holds a lone surrogate, {lone!a}, which is no text", code="invalid_json") from None


def _refuse_constant(word: str) -> Any:
    raise ValueError(f"{word} is no JSON")


def shown(value: object) -> str:
    """A value in an error: short."""
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def given(body: Mapping[str, Any]) -> dict[str, Any]:
    """Without what is null."""
    return {name: value for name, value in body.items() if value is not None}


def check_known(fields: Mapping[str, Any], known: Iterable[str], neutral: Mapping[str, Neutral]) -> None:
    """Raises ApiError for a field that is unknown, or not served and not at a value that says nothing."""
    known_names = frozenset(known)
    for name, value in fields.items():
        if name in known_names:
            continue
        says_nothing = neutral.get(name)
        if says_nothing is None:
            near = get_close_matches(name[:64], known_names, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise invalid(f"{name[:64]} = {shown(value)}: unknown field{hint}", param=name[:64], code="unknown_field")
        if not says_nothing(value):
            raise invalid(f"{name} = {shown(value)}: not served", param=name, code="unsupported_parameter")


def whole(fields: Mapping[str, Any], name: str, default: int, low: int, high: int) -> int:
    """An integer of that range. Raises ApiError."""
    value = fields.get(name, default)
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        raise invalid(f"{name} = {shown(value)}: expected a whole number from {low} to {high}")
    return value


def flag(fields: Mapping[str, Any], name: str, *, default: bool = False) -> bool:
    """A boolean. Raises ApiError."""
    value = fields.get(name, default)
    if not isinstance(value, bool):
        raise invalid(f"{name} = {shown(value)}: expected true or false")
    return value


def metadata_of(fields: Mapping[str, Any]) -> dict[str, str] | None:
    """The caller's notes, which come back with the answer: 16 texts at most. Raises ApiError."""
    notes = fields.get("metadata")
    if notes is None:
        return None
    if not isinstance(notes, dict) or len(notes) > 16:
        raise invalid(f"metadata = {shown(notes)}: expected an object of at most 16 texts")
    for name, value in notes.items():
        if len(name) > 64 or not isinstance(value, str) or len(value) > 512:
            raise invalid(f"metadata.{name[:64]} = {shown(value)}: expected a text of at most 512 characters")
    return notes


def model_of(fields: Mapping[str, Any]) -> str:
    """Which model is asked. Raises ApiError."""
    model = fields.get("model")
    if isinstance(model, str) and 0 < len(model) <= 512:
        return model
    if model is None:
        raise invalid("model: it is missing; GET /v1/models lists those there are", param="model")
    raise ApiError(400, f"model = {shown(model)}: expected the name of a model", param="model")
