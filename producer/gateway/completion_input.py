"""A plain completion as OpenAI's API asks for it, made requests of the queue; and the answer made of their results.

As chat_input.py: no HTTP, submits nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from lorapool.producer.client.request import Request
from lorapool.producer.gateway.answer import fingerprint, finish_reason, usage_of
from lorapool.producer.gateway.caller import Caller
from lorapool.producer.gateway.chat_input import check_streaming
from lorapool.producer.gateway.errors import invalid
from lorapool.producer.gateway.fields import Neutral, check_known, flag, given, metadata_of, model_of, shown, whole
from lorapool.producer.gateway.logprobs import plain_logprobs
from lorapool.producer.gateway.parameters import KNOWN, MAX_ANSWERS, NEUTRAL, drawn, sampling, stated, wanted
from lorapool.shared.job import Result

MAX_TOKENS = 16  # OpenAI's own default for plain completions
PLAIN_FIELDS = frozenset({"prompt", "echo", "logprobs", "response_format", "best_of"})
_NOT_PLAIN: Mapping[str, Neutral] = {"suffix": lambda value: value == ""}
Prompt = str | list[int]


def completion_request(
    body: Mapping[str, Any], caller: Caller, *, default_max_tokens: int = MAX_TOKENS
) -> list[Request]:
    """A request for each answer, prompt by prompt. Raises ApiError, which names the field."""
    fields = given(body)
    check_known(fields, KNOWN | PLAIN_FIELDS, {**NEUTRAL, **_NOT_PLAIN})
    model_of(fields)
    metadata_of(fields)
    check_streaming(fields)
    prompts = prompts_of(fields)
    n = wanted(fields, len(prompts))
    _check_best_of(fields, n)
    params = sampling(fields, default_max_tokens) | _logprobs(fields)
    options = stated(fields, caller)
    if "response_format" in fields:
        options["response_format"] = fields["response_format"]
    if echoes(fields) and any(not isinstance(prompt, str) for prompt in prompts):
        raise invalid("echo = True: a prompt of token ids cannot be echoed")
    return [_request(prompt, options, drawn(params, index)) for prompt in prompts for index in range(n)]


def completion_answer(
    results: Sequence[Result],
    *,
    completion_id: str,
    model: str,
    created: int,
    prompts: int = 1,
    echoed: Sequence[str] = (),
    metadata: dict[str, str] | None = None,
) -> dict[str, Any]:
    """``model``: as it was asked; ``prompts``: how many there were; ``echoed``: the prompt of each answer, if they are
    to come back."""
    before = echoed or [""] * len(results)
    answer: dict[str, Any] = {
        "id": completion_id,
        "object": "text_completion",
        "created": created,
        "model": model,
        "choices": [
            _choice(index, result, prompt) for index, (result, prompt) in enumerate(zip(results, before, strict=True))
        ],
        "usage": usage_of(results, prompts=prompts),
        "system_fingerprint": fingerprint(results[0].digest),
    }
    return answer if metadata is None else answer | {"metadata": metadata}


def prompts_of(fields: Mapping[str, Any]) -> list[Prompt]:
    """One text, several, a list of token ids, or several of those. Raises ApiError."""
    given_prompt = fields.get("prompt")
    if isinstance(given_prompt, str):
        return [given_prompt]
    if isinstance(given_prompt, list) and given_prompt:
        if all(_is_id(item) for item in given_prompt):
            return [given_prompt]
        if len(given_prompt) > MAX_ANSWERS:
            raise invalid(f"prompt: {len(given_prompt)} prompts, at most {MAX_ANSWERS} are taken")
        if all(isinstance(item, str) for item in given_prompt):
            return given_prompt
        if all(isinstance(item, list) and item and all(map(_is_id, item)) for item in given_prompt):
            return given_prompt
    raise invalid(f"prompt = {shown(given_prompt)}: expected a text, several, a list of token ids, or several of those")


def echoes(fields: Mapping[str, Any]) -> bool:
    """Whether the prompt is to come back before its answer. Raises ApiError."""
    echo = flag(fields, "echo")
    if echo and "logprobs" in fields:
        raise invalid("echo = True: with logprobs it is not served, for a prompt's log probabilities are not computed")
    return echo


def _is_id(item: Any) -> bool:
    return isinstance(item, int) and not isinstance(item, bool)


def _check_best_of(fields: Mapping[str, Any], n: int) -> None:
    best_of = whole(fields, "best_of", n, 1, MAX_ANSWERS)
    if best_of != n:
        raise invalid(f"best_of = {best_of}: not served, unless it is n = {n}", code="unsupported_parameter")


def _logprobs(fields: Mapping[str, Any]) -> dict[str, Any]:
    if "logprobs" not in fields:
        return {}
    return {"logprobs": True, "top_logprobs": whole(fields, "logprobs", 0, 0, 20)}


def _request(prompt: Prompt, options: Mapping[str, Any], params: Mapping[str, Any]) -> Request:
    if isinstance(prompt, str):
        return Request(**options, prompt=prompt, params=params)
    return Request(**options, prompt_ids=prompt, params=params)


def _choice(index: int, result: Result, before: str) -> dict[str, Any]:
    return {
        "index": index,
        "text": before + result.text,
        "logprobs": plain_logprobs(result.token_logprobs),
        "finish_reason": finish_reason(result),
    }
