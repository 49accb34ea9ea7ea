"""A chat as OpenAI's API asks for it, made requests of the queue; and the answer made of their results.

Knows no HTTP and submits nothing: ``/v1/chat/completions``, ``/v1/responses`` and batches share it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from lorapool.producer.client.request import Request
from lorapool.producer.gateway.answer import fingerprint, finish_reason, usage_of
from lorapool.producer.gateway.caller import Caller
from lorapool.producer.gateway.errors import invalid
from lorapool.producer.gateway.fields import check_known, flag, given, metadata_of, model_of, whole
from lorapool.producer.gateway.logprobs import chat_logprobs
from lorapool.producer.gateway.messages import messages_of
from lorapool.producer.gateway.parameters import KNOWN, NEUTRAL, drawn, sampling, stated, wanted
from lorapool.shared.job import Result
from lorapool.shared.tools import ToolCall

DEFAULT_MAX_TOKENS = 2048
CHAT_FIELDS = frozenset(
    {"messages", "response_format", "tools", "tool_choice", "parallel_tool_calls", "logprobs", "top_logprobs"}
)


def chat_request(
    body: Mapping[str, Any], caller: Caller, *, default_max_tokens: int = DEFAULT_MAX_TOKENS
) -> list[Request]:
    """A request for each answer; ``adapter`` is the model as it was named. Raises ApiError, which names the field.

    Ranges and schemas are judged at submission: ``parameters.as_asked`` says that in the caller's words.
    """
    fields = given(body)
    check_known(fields, KNOWN | CHAT_FIELDS, NEUTRAL)
    model_of(fields)
    metadata_of(fields)
    check_streaming(fields)
    params = sampling(fields, default_max_tokens) | _logprobs(fields)
    options = stated(fields, caller) | _of_chat(fields)
    return [Request(**options, params=drawn(params, index)) for index in range(wanted(fields))]


def chat_completion(
    results: Sequence[Result], *, completion_id: str, model: str, created: int, metadata: dict[str, str] | None = None
) -> dict[str, Any]:
    """``model``: as it was asked. The answers stand in their order."""
    answer: dict[str, Any] = {
        "id": completion_id,
        "object": "chat.completion",
        "created": created,
        "model": model,
        "choices": [_choice(index, result) for index, result in enumerate(results)],
        "usage": usage_of(results, prompts=1),
        "system_fingerprint": fingerprint(results[0].digest),
    }
    return answer if metadata is None else answer | {"metadata": metadata}


def tool_calls(calls: Sequence[ToolCall]) -> list[dict[str, Any]]:
    """As a message has them."""
    return [
        {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.arguments}}
        for call in calls
    ]


def check_streaming(fields: Mapping[str, Any]) -> None:
    """Raises ApiError for what ``stream`` and ``stream_options`` may not say."""
    stream, options = flag(fields, "stream"), fields.get("stream_options")
    if options is None:
        return
    if not isinstance(options, dict) or not stream:
        raise invalid("stream_options: expected an object, and stream = true with it")
    check_known(given(options), ("include_usage",), {"include_obfuscation": lambda value: value is False})
    flag(given(options), "include_usage")


def _of_chat(fields: Mapping[str, Any]) -> dict[str, Any]:
    options: dict[str, Any] = {"messages": messages_of(fields.get("messages"))}
    if "response_format" in fields:
        options["response_format"] = fields["response_format"]
    if tools := fields.get("tools"):
        if not isinstance(tools, list):
            raise invalid("tools: expected a list")
        options["tools"] = tools
    if "tool_choice" in fields:
        options["tool_choice"] = fields["tool_choice"]
    options["parallel_tool_calls"] = flag(fields, "parallel_tool_calls", default=True)
    return options


def _logprobs(fields: Mapping[str, Any]) -> dict[str, Any]:
    asked, top = flag(fields, "logprobs"), whole(fields, "top_logprobs", 0, 0, 20)
    if top and not asked:
        raise invalid(f"top_logprobs = {top}: it needs logprobs = true")
    return {"logprobs": asked, "top_logprobs": top}


def _choice(index: int, result: Result) -> dict[str, Any]:
    message: dict[str, Any] = {"role": "assistant", "content": result.text, "refusal": None}
    if result.tool_calls:
        message |= {"content": result.text or None, "tool_calls": tool_calls(result.tool_calls)}
    return {
        "index": index,
        "message": message,
        "logprobs": chat_logprobs(result.token_logprobs),
        "finish_reason": finish_reason(result),
    }
