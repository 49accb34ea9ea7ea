"""CreateRequest: a request for a response, read and judged: what is served, what is neutral, what is named and refused.

Pure: knows neither HTTP nor the queue; names of adapters stay as the caller wrote them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from lorapool.producer.gateway.caller import Caller
from lorapool.producer.gateway.errors import ApiError
from lorapool.producer.gateway.fields import Neutral, check_known, flag, given, metadata_of, model_of, shown, whole
from lorapool.producer.gateway.parameters import KNOWN, sampling, stated
from lorapool.producer.gateway.responses.items import Item, input_items

LOGPROBS = "message.output_text.logprobs"
Body = Mapping[str, Any]

_OF_RESPONSES = frozenset({
    "background", "include", "input", "instructions", "max_output_tokens", "parallel_tool_calls",
    "previous_response_id", "store", "text", "tool_choice", "tools", "top_logprobs",
})  # fmt: skip
_OF_CHATS = frozenset({"n", "max_tokens", "max_completion_tokens"})
_NOT_SERVED = ("access_programs", "conversation", "image", "max_tool_calls", "moderation", "prompt")
# What is not served, and the values of it that ask for nothing.
_NEUTRAL: Mapping[str, Neutral] = {
    "background_options": lambda value: value in ({}, {"completion_window": "soonest"}),
    "context_management": lambda value: value == [],
    "prompt_cache_key": lambda value: isinstance(value, str),
    "prompt_cache_options": lambda value: isinstance(value, dict),
    "prompt_cache_retention": lambda value: isinstance(value, str),
    "reasoning": lambda value: isinstance(value, dict) and all(v in (None, "none") for v in value.values()),
    "safety_identifier": lambda value: isinstance(value, str),
    "service_tier": lambda value: value in ("auto", "default"),
    "truncation": lambda value: value == "disabled",
    **dict.fromkeys(
        ("access_programs", "conversation", "image", "max_tool_calls", "moderation", "prompt"), lambda _: False
    ),
}
_REPEATED = (
    "instructions", "max_output_tokens", "metadata", "previous_response_id", "prompt_cache_key", "safety_identifier",
    "temperature", "top_logprobs", "top_p", "user",
)  # fmt: skip
_TOOL = ("type", "name", "description", "parameters", "strict")


@dataclass(frozen=True, slots=True)
class CreateRequest:
    """``options``: a Request's, besides its chat and its params. ``echo``: what the response repeats."""

    items: list[Item]
    instructions: str | None
    previous: str | None
    background: bool
    store: bool
    options: dict[str, Any]
    params: dict[str, Any]
    echo: dict[str, Any]

    @property
    def stream(self) -> bool:
        return bool(self.options["stream"])


def create_request(body: Body, caller: Caller, *, default_max_tokens: int) -> CreateRequest:
    """Raises ApiError."""
    fields = given(body)
    check_known(fields, (KNOWN | _OF_RESPONSES) - _OF_CHATS, _NEUTRAL)
    model_of(fields)
    metadata_of(fields)
    _check_streaming(fields)
    request = CreateRequest(
        items=input_items(fields.get("input")),
        instructions=_text(fields, "instructions"),
        previous=_text(fields, "previous_response_id"),
        background=flag(fields, "background"),
        store=flag(fields, "store", default=True),
        options=stated(fields, caller) | _of_tools(fields) | {"response_format": _format(fields)},
        params=_params(fields, default_max_tokens),
        echo=_echo(fields),
    )
    if request.background and not request.store:
        raise refused("store", fields["store"], "a response in the background is stored")
    return request


def refused(name: str, value: object, why: str, code: str = "invalid_value") -> ApiError:
    """The 400 that names a field."""
    return ApiError(400, f"{name} = {shown(value)}: {why}", param=name, code=code)


def _not_served(name: str, value: object, served: str) -> ApiError:
    return refused(name, value, f"not served; served is {served}", "unsupported_parameter")


def _check_streaming(fields: Body) -> None:
    flag(fields, "stream")
    options = _object(fields, "stream_options")
    check_known(options, (), {"include_obfuscation": lambda value: isinstance(value, bool)})


def _params(fields: Body, default_max_tokens: int) -> dict[str, Any]:
    limit = {"max_tokens": fields["max_output_tokens"]} if "max_output_tokens" in fields else {}
    top = whole(fields, "top_logprobs", 0, 0, 20)
    asked = _includes_logprobs(fields) or top > 0
    return sampling({**fields, **limit}, default_max_tokens) | {"logprobs": asked, "top_logprobs": top}


def _includes_logprobs(fields: Body) -> bool:
    include = fields.get("include", [])
    if not isinstance(include, list):
        raise refused("include", include, "expected a list")
    for at, wanted in enumerate(include):
        if wanted not in (LOGPROBS, "reasoning.encrypted_content"):  # there is never any reasoning to encrypt
            raise _not_served(f"include[{at}]", wanted, LOGPROBS)
    return LOGPROBS in include


def _of_tools(fields: Body) -> dict[str, Any]:
    tools = fields.get("tools", [])
    if not isinstance(tools, list):
        raise refused("tools", tools, "expected a list")
    choice = fields.get("tool_choice", "auto")
    if isinstance(choice, dict) and choice.get("type") not in ("function", "allowed_tools"):
        raise _not_served("tool_choice.type", choice.get("type"), "function and allowed_tools")
    return {
        "tools": [_tool(tool, f"tools[{at}]") for at, tool in enumerate(tools)],
        "tool_choice": choice,
        "parallel_tool_calls": flag(fields, "parallel_tool_calls", default=True),
    }


def _tool(tool: object, where: str) -> dict[str, Any]:
    kind = tool.get("type") if isinstance(tool, dict) else None
    if not isinstance(tool, dict) or kind != "function":
        raise _not_served(f"{where}.type", kind, "function")
    for name, value in tool.items():
        if name not in _TOOL and value not in (None, False, ["direct"]):
            raise _not_served(f"{where}.{name[:64]}", value, "a function's name, description, parameters and strict")
    return {name: tool[name] for name in _TOOL if name in tool}


def _format(fields: Body) -> Any:
    text = _object(fields, "text")
    named = {f"text.{name}": value for name, value in text.items()}
    check_known(named, ("text.format",), {"text.verbosity": lambda value: value == "medium"})
    form = text.get("format")
    kind = form.get("type") if isinstance(form, dict) else form
    if form is not None and kind not in ("text", "json_schema", "json_object"):
        raise _not_served("text.format", form, "of type text, json_schema or json_object")
    if isinstance(form, dict) and kind == "json_schema" and not isinstance(form.get("schema"), dict):
        raise refused("text.format.schema", form.get("schema"), "expected a JSON schema, an object")
    return form


def _object(fields: Body, name: str) -> dict[str, Any]:
    value = fields.get(name, {})
    if not isinstance(value, dict):
        raise refused(name, value, "expected an object")
    return given(value)


def _text(fields: Body, name: str) -> str | None:
    value = fields.get(name)
    if value is not None and not isinstance(value, str):
        raise refused(name, value, "expected a text")
    return value


def _echo(fields: Body) -> dict[str, Any]:
    """Read once all of it is known to be sound."""
    tools = [{"description": None, "parameters": {}, "strict": False, **tool} for tool in fields.get("tools", ())]
    return {
        "metadata": {},
        **{name: fields[name] for name in _REPEATED if name in fields},
        "model": fields["model"],
        "parallel_tool_calls": fields.get("parallel_tool_calls", True),
        "store": fields.get("store", True),
        "text": {"format": {"type": "text"}, "verbosity": "medium", **fields.get("text", {})},
        "tool_choice": fields.get("tool_choice", "auto"),
        "tools": tools,
    }
