"""Parameters that chat and plain completions share, from OpenAI's names to those of ``Client.submit``.

Ranges are the Job's to judge, which names a field as lorapool does; ``as_asked`` gives the caller's own name back.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from hashlib import blake2b
from typing import Any

from lorapool.producer.gateway.caller import Caller
from lorapool.producer.gateway.errors import ApiError, invalid, of_error
from lorapool.producer.gateway.fields import Neutral, shown, whole
from lorapool.shared.errors import InvalidRequest
from lorapool.shared.job import NAME_PATTERN

MAX_ANSWERS = 128  # of one request: prompts × n
_AS_THEY_ARE = ("temperature", "top_p", "frequency_penalty", "presence_penalty", "stop")
_EXTENSIONS = {
    "top_k": "top_k",
    "min_p": "min_p",
    "repetition_penalty": "repetition_penalty",
    "min_tokens": "min_new_tokens",
    "ignore_eos": "ignore_eos",
}
_LIMITS = ("max_completion_tokens", "max_tokens")
KNOWN = frozenset(
    {*_AS_THEY_ARE, *_EXTENSIONS, *_LIMITS, "model", "n", "seed", "logit_bias", "stream", "stream_options", "user"}
    | {"metadata", "priority", "deadline"}
)


def _any(_: Any) -> bool:
    return True


# Hints of where and how it is answered, which change no answer; and what says no more than the default.
NEUTRAL: Mapping[str, Neutral] = {
    "store": lambda value: isinstance(value, bool),  # an answer is kept for a day, stored or not
    "service_tier": lambda value: value in ("auto", "default"),
    "safety_identifier": _any,
    "prompt_cache_key": _any,
    "prompt_cache_retention": _any,
    "modalities": lambda value: value == ["text"],
    "reasoning_effort": lambda value: value == "none",
    "verbosity": lambda value: value == "medium",
    "functions": lambda value: value == [],
    "function_call": lambda value: value == "none",
}
_NAME = re.compile(NAME_PATTERN)


def sampling(fields: Mapping[str, Any], default_max_tokens: int) -> dict[str, Any]:
    """SamplingParams by name; without those of log probabilities, which each API asks for in its own way."""
    params = {name: fields[name] for name in _AS_THEY_ARE if name in fields}
    params |= {ours: fields[name] for name, ours in _EXTENSIONS.items() if name in fields}
    params.setdefault("temperature", 1.0)
    limit = next((fields[name] for name in _LIMITS if name in fields), default_max_tokens)
    params["max_new_tokens"] = limit
    if "seed" in fields:
        params["seed"] = _seed(fields["seed"])
    if "logit_bias" in fields:
        params["logit_bias"] = _bias(fields["logit_bias"])
    return params


def _seed(seed: Any) -> int:
    if isinstance(seed, bool) or not isinstance(seed, int):
        raise invalid(f"seed = {shown(seed)}: expected a whole number")
    return seed & (2**63 - 1)


def _bias(bias: Any) -> dict[int, Any]:
    if not isinstance(bias, dict):
        raise invalid(f"logit_bias = {shown(bias)}: expected an object, of token id to bias")
    try:
        return {int(token): value for token, value in bias.items()}
    except ValueError:
        raise invalid(f"logit_bias = {shown(bias)}: expected ids of tokens as its names") from None


def wanted(fields: Mapping[str, Any], prompts: int = 1) -> int:
    """How many answers to each prompt."""
    n = whole(fields, "n", 1, 1, MAX_ANSWERS)
    if n * prompts > MAX_ANSWERS:
        raise invalid(f"n = {n}: with {prompts} prompts that is {n * prompts} answers, at most {MAX_ANSWERS} are given")
    return n


def stated(fields: Mapping[str, Any], caller: Caller) -> dict[str, Any]:
    """What of a job is no sampling param: whose it is, when it is to run."""
    options: dict[str, Any] = {"adapter": fields.get("model"), "agent": agent_of(fields, caller), "key": caller.key}
    options["stream"] = fields.get("stream", False)
    options["priority"] = fields.get("priority", "normal")
    options["deadline"] = fields.get("deadline")
    options["on_lost"] = "resubmit"
    return options


def agent_of(fields: Mapping[str, Any], caller: Caller) -> str:
    """The key's agent; where there are no keys, ``user``, made a name."""
    user = fields.get("user")
    if user is not None and not isinstance(user, str):
        raise invalid(f"user = {shown(user)}: expected a text")
    if caller.key is not None or not user:
        return caller.agent
    return (
        user if _NAME.fullmatch(user) else f"user-{blake2b(user.encode(errors='replace'), digest_size=8).hexdigest()}"
    )


def drawn(params: Mapping[str, Any], index: int) -> dict[str, Any]:
    """The params of answer number ``index``: a seed of its own, if any was given."""
    if index == 0 or params.get("seed") is None:
        return dict(params)
    return {**params, "seed": (params["seed"] + index) & (2**63 - 1)}


def as_asked(error: InvalidRequest, fields: Mapping[str, Any]) -> ApiError:
    """The refusal with the names that the caller used."""
    told = str(error)
    limit = next((name for name in ("max_new_tokens", "max_output_tokens", *_LIMITS) if name in fields), _LIMITS[0])
    for ours, theirs in (("max_new_tokens", limit), ("min_new_tokens", "min_tokens")):
        told = told.replace(ours, theirs)
    return invalid(told, code=of_error(error).code)
