"""ResponseFormat: the form that an answer must have, as it travels.

Judged for size and depth where it is submitted; whether it can be served is the worker's to say, who compiles it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Literal

from lorapool.shared.wire import Wire, parsed


class ResponseFormat(Wire):
    """``value`` by ``kind``: json_schema, the schema as JSON; json_object, empty; regex, the expression; choice, the
    answers to choose from, a JSON list of strings; lark, a grammar as llguidance reads it."""

    kind: Literal["json_schema", "json_object", "regex", "choice", "lark"]
    value: str = ""

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
            fields = {"kind": "json_schema", "value": json.dumps(schema)}
        elif kind == "choice":
            fields = {"kind": kind, "value": json.dumps(fields.get("choices"))}
        else:
            fields = {"kind": kind, "value": _text(fields)}
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
