"""Tools: functions that an answer may call, which of them it may or must, and the calls that came of it.

Names and meanings are those of OpenAI's chat API. Knows neither templates nor how a call is written in text: that is
the worker's.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from hashlib import blake2b
from typing import Annotated, Any, Literal

from pydantic import Field, StringConstraints, field_validator

from lorapool.shared.wire import Wire, parsed

ToolName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_.-]{1,64}$")]
CallId = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_.-]{1,128}$")]
MAX_DEPTH = 32  # of a schema's objects and lists within each other
_LARGEST = 2**63  # what every reader of JSON and msgpack takes


class Tool(Wire):
    """A function that an answer may call. ``parameters``: the JSON schema of its arguments, an object. ``strict``: a
    call is held to that schema while it is written."""

    name: ToolName
    description: Annotated[str, Field(max_length=16_384)] = ""
    parameters: dict[str, Any] = Field(default_factory=dict)
    strict: bool = False

    @field_validator("parameters")
    @classmethod
    def _schema_of_an_object(cls, given: dict[str, Any]) -> dict[str, Any]:
        if given.get("type", "object") != "object":
            raise ValueError(f"type {given['type']!r:.60}: arguments are an object")
        _check_json(given)
        return given

    @classmethod
    def of(cls, given: Tool | Mapping[str, Any]) -> Tool:
        """From itself, its fields, or OpenAI's ``{"type": "function", "function": {…}}``. Raises InvalidRequest."""
        if isinstance(given, Tool):
            return given
        fields = dict(given) if isinstance(given, Mapping) else given
        if isinstance(fields, dict) and fields.get("type") == "function":
            fields = fields["function"] if "function" in fields else {k: v for k, v in fields.items() if k != "type"}
        if isinstance(fields, dict):
            fields = {name: value for name, value in fields.items() if value is not None}
        return parsed(cls, "tools", fields)


class ToolChoice(Wire):
    """``auto``: it may call some; ``none``: it may not; ``required``: it must. ``names``: those that it may call, all
    if empty."""

    mode: Literal["auto", "none", "required"] = "auto"
    names: tuple[ToolName, ...] = ()

    @classmethod
    def of(cls, given: ToolChoice | Mapping[str, Any] | str) -> ToolChoice:
        """From itself, its fields, the name of a mode, or OpenAI's forms for one function or several that are allowed.

        Raises InvalidRequest.
        """
        if isinstance(given, ToolChoice):
            return given
        if isinstance(given, str):
            return parsed(cls, "tool_choice", {"mode": given})
        fields = dict(given) if isinstance(given, Mapping) else given
        if isinstance(fields, dict) and fields.get("type") == "function":
            return parsed(cls, "tool_choice", {"mode": "required", "names": (_name_of(fields),)})
        if isinstance(fields, dict) and fields.get("type") == "allowed_tools":
            allowed = _within(fields, "allowed_tools")
            tools = allowed.get("tools")
            names = tuple(map(_name_of, tools)) if isinstance(tools, list | tuple) else tools
            return parsed(cls, "tool_choice", {"mode": allowed.get("mode", "auto"), "names": names})
        return parsed(cls, "tool_choice", fields)


class ToolCall(Wire):
    """One call of an answer. ``arguments``: JSON, as it was written."""

    id: CallId
    name: ToolName
    arguments: str


def call_id(job_id: str, index: int) -> str:
    """The id of a job's call by its number: the same at each attempt."""
    return f"call_{blake2b(f'{job_id}:{index}'.encode(), digest_size=12).hexdigest()}"


class ToolCallDelta(Wire):
    """The next piece of the answer's call number ``index``; ``id`` and ``name`` come with its first alone."""

    index: int
    id: str = ""
    name: str = ""
    arguments: str = ""

    def grown(self, more: ToolCallDelta) -> ToolCallDelta:
        """With the next piece of the same call."""
        return ToolCallDelta(
            index=self.index,
            id=self.id or more.id,
            name=self.name or more.name,
            arguments=self.arguments + more.arguments,
        )


def joined(deltas: Iterable[ToolCallDelta]) -> list[ToolCallDelta]:
    """One a call, in the order of their first pieces."""
    calls: dict[int, ToolCallDelta] = {}
    for delta in deltas:
        known = calls.get(delta.index)
        calls[delta.index] = delta if known is None else known.grown(delta)
    return list(calls.values())


def _within(fields: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    """What lies below ``key``, as OpenAI's chat API has it, or the same flat, as its responses API does."""
    inner = fields.get(key)
    return inner if isinstance(inner, Mapping) else fields


def _name_of(tool: Any) -> Any:
    return _within(tool, "function").get("name") if isinstance(tool, Mapping) else tool


def _check_json(schema: dict[str, Any]) -> None:
    """Raise ValueError for what is no JSON, or lies too deep. Level by level: depth costs no stack."""
    level: list[Any] = [schema]
    for _ in range(MAX_DEPTH):
        for value in level:
            if not _is_json(value):
                raise ValueError(f"{value!r:.60}: expected JSON, with text as keys and integers below 2**63")
        level = [inner for value in level for inner in _inside(value)]
        if not level:
            return
    raise ValueError(f"it is more than {MAX_DEPTH} levels deep")


def _is_json(value: Any) -> bool:
    if isinstance(value, dict):
        return all(isinstance(key, str) for key in value)
    if isinstance(value, float):
        return math.isfinite(value)
    if isinstance(value, int):
        return abs(value) < _LARGEST
    return value is None or isinstance(value, str | list | tuple)


def _inside(value: Any) -> list[Any]:
    return list(value.values()) if isinstance(value, dict) else list(value) if isinstance(value, list | tuple) else []
