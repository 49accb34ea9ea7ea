"""CreateRequest: a request for a response, read and judged: what is served, what is neutral, what is named and refused.

Pure: knows neither HTTP nor the queue; names of adapters stay as the caller wrote them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from lorapool.producer.gateway.errors import ApiError
from lorapool.producer.gateway.responses.items import Item, input_items

LOGPROBS = "message.output_text.logprobs"
Body = Mapping[str, Any]

# What may be said of things that are not served, for it asks for nothing: the values besides null.
_NEUTRAL: Mapping[str, tuple[Any, ...]] = {
    "access_programs": (),
    "background_options": ({}, {"completion_window": "soonest"}),
    "context_management": ([],),
    "conversation": (),
    "image": (),
    "max_tool_calls": (),
    "moderation": (),
    "prompt": (),
    "prompt_cache_options": ({},),
    "reasoning": ({}, {"effort": None}, {"summary": None}, {"effort": None, "summary": None}, {"effort": "none"}),
    "service_tier": ("auto", "default"),
    "truncation": ("disabled",),
}
# What says something of the request and asks for nothing.
_TOLD = ("prompt_cache_key", "prompt_cache_retention", "safety_identifier")
_OBJECTS = {"stream_options": ("include_obfuscation",), "text": ("format", "verbosity")}
_SERVED = (
    "background", "include", "input", "instructions", "max_output_tokens", "metadata", "model", "parallel_tool_calls",
    "previous_response_id", "store", "stream", "stream_options", "temperature", "text", "tool_choice", "tools",
    "top_logprobs", "top_p", "user",
)  # fmt: skip
_KINDS: Mapping[str, tuple[type, ...]] = {
    "background": (bool,),
    "instructions": (str,),
    "max_output_tokens": (int,),
    "model": (str,),
    "parallel_tool_calls": (bool,),
    "previous_response_id": (str,),
    "prompt_cache_key": (str,),
    "prompt_cache_retention": (str,),
    "safety_identifier": (str,),
    "store": (bool,),
    "stream": (bool,),
    "temperature": (int, float),
    "top_logprobs": (int,),
    "top_p": (int, float),
    "user": (str,),
    "tools": (list,),
    "include": (list,),
    "metadata": (dict,),
    "text": (dict,),
    "stream_options": (dict,),
    "tool_choice": (str, dict),
}
_REPEATED = (
    "instructions", "max_output_tokens", "metadata", "previous_response_id", "prompt_cache_key",
    "prompt_cache_retention", "safety_identifier", "temperature", "top_logprobs", "top_p", "user",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class CreateRequest:
    """``arguments``: what ``Client.submit`` takes of it, besides the chat. ``echo``: what the response repeats."""

    model: str
    items: list[Item]
    instructions: str | None
    previous: str | None
    background: bool
    stream: bool
    store: bool
    user: str | None
    arguments: dict[str, Any]
    echo: dict[str, Any]


def create_request(body: Body) -> CreateRequest:
    """Raises ApiError."""
    _judge(body)
    given = {name: value for name, value in body.items() if value is not None}
    if "model" not in given:
        raise refused("model", None, "expected the name of an adapter, an alias, or the base model")
    request = CreateRequest(
        model=given["model"],
        items=input_items(given.get("input")),
        instructions=given.get("instructions"),
        previous=given.get("previous_response_id"),
        background=given.get("background", False),
        stream=given.get("stream", False),
        store=given.get("store", True),
        user=given.get("user"),
        arguments=_arguments(given),
        echo=_echo(given),
    )
    if request.background and not request.store:
        raise refused("store", given["store"], "a response in the background is stored")
    return request


def refused(name: str, value: object, why: str, code: str = "invalid_value") -> ApiError:
    """The 400 that names a field."""
    return ApiError(400, f"{name} = {value!r:.60}: {why}", param=name, code=code)


def _judge(body: Body) -> None:
    """Every field is known and served, or asks for nothing."""
    for name, value in body.items():
        if name in _NEUTRAL:
            if value is not None and value not in _NEUTRAL[name]:
                raise refused(name, value, "not served here; leave it out", "unsupported_parameter")
        elif name not in _SERVED and name not in _TOLD:
            raise refused(name, value, "unknown parameter", "unknown_parameter")
        elif name in _KINDS and value is not None and not _is_a(value, _KINDS[name]):
            raise refused(name, value, f"expected {' or '.join(kind.__name__ for kind in _KINDS[name])}")
        elif name in _OBJECTS and (unknown := set(value or ()) - set(_OBJECTS[name])):
            raise refused(f"{name}.{min(unknown)}", value[min(unknown)], "unknown parameter", "unknown_parameter")
    _judge_metadata(body.get("metadata") or {})
    for at, wanted in enumerate(body.get("include") or ()):
        if wanted not in (LOGPROBS, "reasoning.encrypted_content"):  # there is never any reasoning to encrypt
            raise refused(f"include[{at}]", wanted, f"not served here; served is {LOGPROBS}", "unsupported_parameter")


def _is_a(value: object, kinds: tuple[type, ...]) -> bool:
    return isinstance(value, kinds) and (bool in kinds or not isinstance(value, bool))


def _judge_metadata(metadata: Mapping[str, Any]) -> None:
    if len(metadata) > 16:
        raise refused("metadata", len(metadata), "expected at most 16 pairs")
    for name, value in metadata.items():
        if len(name) > 64 or not isinstance(value, str) or len(value) > 512:
            raise refused(f"metadata.{name:.64}", value, "expected names of up to 64 characters, texts of up to 512")


def _arguments(given: Body) -> dict[str, Any]:
    text = given.get("text", {})
    if text.get("verbosity") not in (None, "medium"):
        raise refused("text.verbosity", text["verbosity"], "not served here; leave it out", "unsupported_parameter")
    logprobs = LOGPROBS in given.get("include", ()) or bool(given.get("top_logprobs"))
    arguments = {
        "response_format": _format(text.get("format")),
        "tools": [_tool(tool, at) for at, tool in enumerate(given.get("tools", ()))],
        "tool_choice": _tool_choice(given.get("tool_choice", "auto")),
        "parallel_tool_calls": given.get("parallel_tool_calls", True),
        "temperature": given.get("temperature"),
        "top_p": given.get("top_p"),
        "max_new_tokens": given.get("max_output_tokens"),
        "logprobs": logprobs or None,
        "top_logprobs": given.get("top_logprobs") if logprobs else None,
    }
    return {name: value for name, value in arguments.items() if value is not None}


def _format(given: object) -> object:
    kind = given.get("type") if isinstance(given, dict) else given
    if given is not None and kind not in ("text", "json_schema", "json_object"):
        raise refused("text.format", given, 'expected {"type": "text"}, json_schema or json_object')
    if kind == "json_schema" and isinstance(given, dict) and not isinstance(given.get("schema"), dict):
        raise refused("text.format.schema", given.get("schema"), "expected a JSON schema, an object")
    return None if kind == "text" else given


def _tool(given: object, at: int) -> dict[str, Any]:
    kind = given.get("type") if isinstance(given, dict) else None
    if not isinstance(given, dict) or kind != "function":
        raise refused(f"tools[{at}].type", kind, "not served here; served is function", "unsupported_parameter")
    for name in ("async", "defer_loading", "allowed_callers", "output_schema"):
        if given.get(name) not in (None, False, ["direct"]):
            raise refused(f"tools[{at}].{name}", given[name], "not served here; leave it out", "unsupported_parameter")
    return {name: given[name] for name in given if name in ("type", "name", "description", "parameters", "strict")}


def _tool_choice(given: str | dict[str, Any]) -> str | dict[str, Any]:
    if isinstance(given, dict) and given.get("type") not in ("function", "allowed_tools"):
        raise refused("tool_choice.type", given.get("type"), "not served here; served are function and allowed_tools")
    return given


def _echo(given: Body) -> dict[str, Any]:
    echo = {name: given[name] for name in _REPEATED if name in given}
    tools = [{"description": None, "parameters": {}, "strict": False, **tool} for tool in given.get("tools", ())]
    return {
        "metadata": {},
        **echo,
        "model": given["model"],
        "parallel_tool_calls": given.get("parallel_tool_calls", True),
        "text": {"format": {"type": "text"}, "verbosity": "medium", **given.get("text", {})},
        "tool_choice": given.get("tool_choice", "auto"),
        "tools": tools,
    }
