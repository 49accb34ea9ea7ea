"""Items: what a response was asked with, as OpenAI writes it: messages, calls and their outputs.

``input_items`` brings them into the one form that is stored and listed; ``messages_of`` makes a chat of that form.
Knows neither HTTP nor the queue.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from lorapool.producer.gateway.errors import ApiError

Item = dict[str, Any]
_ROLES = ("user", "assistant", "system", "developer")
_TEXT_PARTS = {"input_text": "text", "output_text": "text", "text": "text", "refusal": "refusal"}


def input_items(given: object) -> list[Item]:
    """``input`` of a request, a text or a list, as items without ids of ours. Raises ApiError."""
    if isinstance(given, str):
        return [_message({"role": "user", "content": given}, "input")]
    if not isinstance(given, list) or not given:
        raise _bad("input", given, "expected a text, or a list of items with at least one")
    return [_item(item, f"input[{at}]") for at, item in enumerate(given)]


def with_ids(items: Sequence[Item], job_id: str) -> list[Item]:
    """Each with an id: its own, or one made of the job's and its place."""
    return [item if item.get("id") else {"id": f"{_PREFIX[item['type']]}_{job_id}_{at}", **item}
            for at, item in enumerate(items)]  # fmt: skip


def messages_of(items: Sequence[Item], instructions: str | None = None) -> list[Item]:
    """The chat: calls go with the assistant's message before them, or make one."""
    messages: list[Item] = [] if not instructions else [{"role": "system", "content": instructions}]
    for item in items:
        if item["type"] == "message":
            role = "system" if item["role"] == "developer" else item["role"]
            messages.append({"role": role, "content": "".join(text_of(part) for part in item["content"])})
        elif item["type"] == "function_call":
            _call(messages, item)
        else:
            messages.append({"role": "tool", "content": item["output"], "tool_call_id": item["call_id"]})
    return messages


def text_of(part: Item) -> str:
    """Of a part of a message."""
    return str(part.get("text") or part.get("refusal") or "")


_PREFIX = {"message": "msg", "function_call": "fc", "function_call_output": "fco"}


def _call(messages: list[Item], item: Item) -> None:
    call = {"id": item["call_id"], "name": item["name"], "arguments": item["arguments"]}
    if not messages or messages[-1]["role"] != "assistant":
        messages.append({"role": "assistant", "content": ""})
    messages[-1]["tool_calls"] = [*messages[-1].get("tool_calls", ()), call]


def _item(item: object, where: str) -> Item:
    if not isinstance(item, dict):
        raise _bad(where, item, "expected an object")
    kind = item.get("type") or ("message" if "role" in item else None)
    read = _READERS.get(kind) if isinstance(kind, str) else None
    if read is None:
        raise _bad(f"{where}.type", kind, f"not served here; served are {', '.join(_READERS)}")
    return read(item, where)


def _message(item: Item, where: str) -> Item:
    role = item.get("role")
    if role not in _ROLES:
        raise _bad(f"{where}.role", role, f"expected one of {', '.join(_ROLES)}")
    parts = _parts(item.get("content"), f"{where}.content")
    kept = [_part(part, role) for part in parts]
    return {"type": "message", **_own_id(item, where), "role": role, "status": "completed", "content": kept}


def _part(text: str, role: object) -> Item:
    if role == "assistant":
        return {"type": "output_text", "text": text, "annotations": []}
    return {"type": "input_text", "text": text}


def _function_call(item: Item, where: str) -> Item:
    fields = {name: _text(item, name, where) for name in ("call_id", "name", "arguments")}
    return {"type": "function_call", **_own_id(item, where), **fields, "status": "completed"}


def _function_call_output(item: Item, where: str) -> Item:
    output = "".join(_parts(item.get("output"), f"{where}.output"))
    fields = {"call_id": _text(item, "call_id", where), "output": output}
    return {"type": "function_call_output", **_own_id(item, where), **fields, "status": "completed"}


_READERS: dict[str, Callable[[Item, str], Item]] = {
    "message": _message,
    "function_call": _function_call,
    "function_call_output": _function_call_output,
}


def _parts(content: object, where: str) -> list[str]:
    """The texts of a content, which is one or a list of parts."""
    if isinstance(content, str):
        return [content]
    if not isinstance(content, list):
        raise _bad(where, content, "expected a text, or a list of parts")
    return [_part_text(part, f"{where}[{at}]") for at, part in enumerate(content)]


def _part_text(part: object, where: str) -> str:
    kind = part.get("type") if isinstance(part, dict) else None
    if not isinstance(part, dict) or not isinstance(kind, str) or kind not in _TEXT_PARTS:
        raise _bad(f"{where}.type", kind, f"not served here; served are {', '.join(_TEXT_PARTS)}")
    return _text(part, _TEXT_PARTS[kind], where)


def _text(item: Item, name: str, where: str) -> str:
    value = item.get(name)
    if not isinstance(value, str):
        raise _bad(f"{where}.{name}", value, "expected a text")
    return value


def _own_id(item: Item, where: str) -> Item:
    own = item.get("id")
    if own is None:
        return {}
    if not isinstance(own, str) or not 0 < len(own) <= 256:
        raise _bad(f"{where}.id", own, "expected a text of at most 256 characters")
    return {"id": own}


def _bad(where: str, value: object, expected: str) -> ApiError:
    return ApiError(400, f"{where} = {value!r:.60}: {expected}", param=where, code="invalid_value")
