"""ResponseFormat: the form that an answer must have, as it travels.

Judged for size and depth where it is submitted; whether it can be served is the worker's to say, who compiles it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any, Literal

from pydantic import model_validator

from lorapool.shared.errors import InvalidRequest
from lorapool.shared.wire import Wire, parsed

MAX_BYTES = {"json_schema": 128 << 10, "json_object": 0, "regex": 16 << 10, "choice": 128 << 10, "lark": 64 << 10}
MAX_DEPTH = 64  # of objects and lists within each other, in a schema
MAX_CHOICES = 10_000
_TYPES = frozenset({"object", "array", "string", "number", "integer", "boolean", "null"})


class ResponseFormat(Wire):
    """``value`` by ``kind``: json_schema, the schema as JSON; json_object, empty; regex, the expression; choice, the
    answers to choose from, a JSON list of strings; lark, a grammar as llguidance reads it."""

    kind: Literal["json_schema", "json_object", "regex", "choice", "lark"]
    value: str = ""

    @model_validator(mode="after")
    def _within_bounds(self) -> ResponseFormat:
        size, most = len(self.value.encode(errors="surrogatepass")), MAX_BYTES[self.kind]
        if size > most:
            raise ValueError(f"{self.kind} of {size:,} bytes, at most {most:,} are taken")
        if self.kind == "json_schema":
            _check_schema(_read(self.value))
        elif self.kind == "choice":
            _check_choices(_read(self.value))
        elif self.kind != "json_object" and not self.value.strip():
            raise ValueError(
                f"{self.kind} is empty: expected the {'expression' if self.kind == 'regex' else 'grammar'}"
            )
        return self

    @classmethod
    def of(cls, given: ResponseFormat | Mapping[str, Any] | None) -> ResponseFormat | None:
        """From itself, its fields, or the forms of OpenAI, TGI and LoRAX; None for ``text``, which is any.

        Raises InvalidRequest.
        """
        if given is None or isinstance(given, ResponseFormat):
            return given
        fields: Any = dict(given) if isinstance(given, Mapping) else given
        if not isinstance(fields, dict) or "type" not in fields:
            return parsed(cls, "response_format", fields)
        kind = fields["type"]
        if kind == "text":
            return None
        schema = _schema(kind, fields)
        if schema is not _NONE:
            fields = {"kind": "json_schema", "value": schema if isinstance(schema, str) else _written(schema)}
        elif kind == "choice":
            fields = {"kind": kind, "value": _written(fields.get("choices", fields.get("value")))}
        else:
            fields = {"kind": "lark" if kind == "grammar" else kind, "value": _text(fields)}
        return parsed(cls, "response_format", fields)


_NONE = object()


def _schema(kind: Any, fields: dict[str, Any]) -> Any:
    """The schema that the form brings, ``_NONE`` where it brings none: in TGI and LoRAX a JSON object may."""
    if kind == "json_schema":
        holder = fields.get("json_schema") or fields
        return holder.get("schema", holder.get("value")) if isinstance(holder, Mapping) else holder
    if kind in ("json", "json_object"):
        return fields.get("schema", fields.get("value", _NONE if kind == "json_object" else None))
    return _NONE


def _text(fields: dict[str, Any]) -> Any:
    named = (fields.get(name) for name in ("regex", "grammar", "value"))
    return next((text for text in named if text), "")


def _written(value: Any) -> str:
    try:
        return json.dumps(value)
    except (TypeError, ValueError, RecursionError) as error:
        raise InvalidRequest(f"response_format: it cannot be written as JSON: {error}") from None


def _read(text: str) -> Any:
    try:
        return json.loads(text)
    except RecursionError:
        raise ValueError(f"it is nested too deep: at most {MAX_DEPTH} levels are taken") from None
    except ValueError as error:
        raise ValueError(f"it is no JSON: {error}") from None


def _check_schema(schema: Any) -> None:
    """What is cheap to see; all else is the worker's to judge."""
    if not isinstance(schema, dict):
        raise ValueError(f"schema = {_shown(schema)}: expected a JSON object")  # noqa: TRY004  pydantic takes this one
    kinds = schema.get("type", [])
    for kind in kinds if isinstance(kinds, list) else [kinds]:
        if not isinstance(kind, str) or kind not in _TYPES:
            raise ValueError(f"schema.type = {_shown(kind)}: expected one of {', '.join(sorted(_TYPES))}")
    level: list[Any] = [schema]
    for _ in range(MAX_DEPTH):
        level = [inner for outer in level for inner in _inside(outer)]
        if not level:
            return
    raise ValueError(f"schema is nested too deep: at most {MAX_DEPTH} levels are taken")


def _inside(value: Any) -> Iterator[Any]:
    values = value.values() if isinstance(value, dict) else value
    return (inner for inner in values if isinstance(inner, dict | list))


def _check_choices(choices: Any) -> None:
    if not isinstance(choices, list) or not all(isinstance(choice, str) and choice for choice in choices):
        raise ValueError("choices: expected a list of texts, none of them empty")
    if not 1 <= len(choices) <= MAX_CHOICES:
        raise ValueError(f"{len(choices):,} choices: expected 1 to {MAX_CHOICES:,}")


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 40 else text[:37] + "..."
