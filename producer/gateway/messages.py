"""Messages of a chat, from OpenAI's forms to those of a Job: parts become one text, calls lose their wrapping."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lorapool.producer.gateway.errors import invalid
from lorapool.producer.gateway.fields import shown

_ROLES = {"developer": "system"}
_TEXTS = {"text": "text", "input_text": "text", "output_text": "text", "refusal": "refusal"}
_FIELDS = frozenset({"role", "content", "name", "tool_calls", "tool_call_id", "refusal"})


def messages_of(given: Any) -> list[dict[str, Any]]:
    """As ``Client.submit`` takes them. Raises ApiError that names the message."""
    if not isinstance(given, list) or not given:
        raise invalid(f"messages = {shown(given)}: expected a list of at least one message")
    return [_message(index, message) for index, message in enumerate(given)]


def _message(index: int, given: Any) -> dict[str, Any]:
    where = f"messages.{index}"
    if not isinstance(given, dict):
        raise invalid(f"{where} = {shown(given)}: expected an object")
    fields = {name: value for name, value in given.items() if value is not None and value != []}
    for name in fields.keys() - _FIELDS:
        raise invalid(f"{where}.{name[:64]} = {shown(fields[name])}: not served")
    role = fields.get("role")
    message: dict[str, Any] = {"role": _ROLES.get(role, role) if isinstance(role, str) else role}
    if "tool_calls" in fields:
        message["tool_calls"] = _calls(where, fields["tool_calls"])
    message |= {name: fields[name] for name in ("name", "tool_call_id") if name in fields}
    content = fields.get("content", fields.get("refusal"))
    if content is None and role == "assistant":
        content = ""
    message["content"] = _text(where, content)
    return message


def _text(where: str, content: Any) -> Any:
    if not isinstance(content, list):
        if content is None:
            raise invalid(f"{where}.content: it is missing")
        return content
    return "\n".join(_part(f"{where}.content.{index}", part) for index, part in enumerate(content))


def _part(where: str, part: Any) -> str:
    if isinstance(part, str):
        return part
    kind = part.get("type") if isinstance(part, dict) else None
    text = part.get(_TEXTS[kind]) if isinstance(kind, str) and kind in _TEXTS else None
    if not isinstance(text, str):
        raise invalid(f"{where} = {shown(part)}: expected a part of type text; images, audio and files are not served")
    return text


def _calls(where: str, calls: Any) -> list[dict[str, Any]]:
    if not isinstance(calls, list):
        raise invalid(f"{where}.tool_calls = {shown(calls)}: expected a list")
    return [_call(f"{where}.tool_calls.{index}", call) for index, call in enumerate(calls)]


def _call(where: str, call: Any) -> dict[str, Any]:
    function = call.get("function") if isinstance(call, Mapping) else None
    if not isinstance(function, Mapping):
        raise invalid(f"{where} = {shown(call)}: expected the call of a function")
    return {"id": call.get("id"), "name": function.get("name"), "arguments": function.get("arguments")}
