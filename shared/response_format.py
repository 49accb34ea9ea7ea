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
        """From itself, its fields, or OpenAI's forms; None for its ``text``, which is any. Raises InvalidRequest."""
        if given is None or isinstance(given, ResponseFormat):
            return given
        fields: Any = dict(given) if isinstance(given, Mapping) else given
        if not isinstance(fields, dict) or "type" not in fields:
            return parsed(cls, "response_format", fields)
        kind = fields["type"]
        if kind == "text":
            return None
        if kind == "json_schema":
            schema = (fields.get("json_schema") or fields).get("schema")
            fields = {"kind": kind, "value": json.dumps(schema)}
        elif kind == "choice":
            fields = {"kind": kind, "value": json.dumps(fields.get("choices"))}
        else:
            fields = {"kind": kind, "value": fields.get("regex") or fields.get("grammar") or ""}
        return parsed(cls, "response_format", fields)
