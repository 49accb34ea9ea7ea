"""Tools: functions that an answer may call, which of them it may or must, and the calls that came of it.

Names and meanings are those of OpenAI's chat API. Knows neither templates nor how a call is written in text: that is
the worker's.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field, StringConstraints

from lorapool.shared.wire import Wire, parsed

ToolName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_.-]{1,64}$")]
CallId = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_.-]{1,128}$")]


class Tool(Wire):
    """A function that an answer may call. ``parameters``: the JSON schema of its arguments, an object. ``strict``: a
    call is held to that schema while it is written."""

    name: ToolName
    description: Annotated[str, Field(max_length=16_384)] = ""
    parameters: dict[str, Any] = Field(default_factory=dict)
    strict: bool = False

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
            name = (fields.get("function") or fields).get("name")
            return parsed(cls, "tool_choice", {"mode": "required", "names": (name,)})
        if isinstance(fields, dict) and fields.get("type") == "allowed_tools":
            allowed = fields.get("allowed_tools") or fields
            names = tuple((tool.get("function") or tool).get("name") for tool in allowed.get("tools", ()))
            return parsed(cls, "tool_choice", {"mode": allowed.get("mode", "auto"), "names": names})
        return parsed(cls, "tool_choice", fields)


class ToolCall(Wire):
    """One call of an answer. ``arguments``: JSON, as it was written."""

    id: CallId
    name: ToolName
    arguments: str


class ToolCallDelta(Wire):
    """The next piece of the answer's call number ``index``; ``id`` and ``name`` come with its first alone."""

    index: int
    id: str = ""
    name: str = ""
    arguments: str = ""
