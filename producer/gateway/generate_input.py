"""What ``/generate`` is asked, in LoRAX's and TGI's names, made a request of the queue. Submits nothing."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lorapool.producer.client.request import Request
from lorapool.producer.gateway.caller import Caller
from lorapool.producer.gateway.errors import invalid
from lorapool.producer.gateway.fields import Neutral, check_known, flag, given, shown, whole
from lorapool.producer.gateway.parameters import stated
from lorapool.shared.job import BASE_REF

_AS_THEY_ARE = ("repetition_penalty", "frequency_penalty", "presence_penalty", "stop", "seed")
_DRAWS = ("temperature", "top_k", "top_p")
GENERATE_FIELDS = frozenset(
    {*_AS_THEY_ARE, *_DRAWS, "adapter_id", "do_sample", "max_new_tokens", "ignore_eos_token", "return_full_text"}
    | {"details", "response_format", "grammar", "return_k_alternatives", "priority", "deadline", "user"}
)


def _no(value: Any) -> bool:
    return value in (False, 0, 1, [], {})


_NEUTRAL: Mapping[str, Neutral] = {
    "adapter_source": lambda value: value in ("local", "hub", "s3", "pbase"),  # the catalog knows where it is
    "best_of": lambda value: value == 1,
    "decoder_input_details": _no,
    "merged_adapters": _no,
    "adapter_parameters": _no,
    "top_n_tokens": _no,
    "truncate": _no,
    "typical_p": lambda value: value == 1.0,
    "watermark": _no,
    "apply_chat_template": _no,
    "api_token": _no,
}


def check_fields(body: Mapping[str, Any]) -> None:
    """Raises ApiError for what is no request of theirs."""
    check_known(body, ("inputs", "parameters", "stream"), {})
    if not isinstance(body.get("inputs"), str):
        raise invalid(f"inputs = {shown(body.get('inputs'))}: expected a text")


def parameters_of(body: Mapping[str, Any]) -> dict[str, Any]:
    """Those that were given. Raises ApiError."""
    parameters = body.get("parameters", {})
    if not isinstance(parameters, dict):
        raise invalid(f"parameters = {shown(parameters)}: expected an object")
    fields = given(parameters)
    check_known(fields, GENERATE_FIELDS, _NEUTRAL)
    return fields


def generate_request(
    body: Mapping[str, Any], fields: Mapping[str, Any], caller: Caller, *, default_max_tokens: int, stream: bool
) -> Request:
    """``fields`` are its parameters. Raises ApiError."""
    name = fields.get("adapter_id") or BASE_REF
    if not isinstance(name, str):
        raise invalid(f"adapter_id = {shown(name)}: expected a text")
    alternatives = whole(fields, "return_k_alternatives", 0, 0, 20)
    details, _ = flag(fields, "details"), flag(fields, "return_full_text")
    params = {key: fields[key] for key in _AS_THEY_ARE if key in fields}
    params |= _drawn(fields) | {"ignore_eos": flag(fields, "ignore_eos_token")}
    params |= {"max_new_tokens": fields.get("max_new_tokens", default_max_tokens)}
    params |= {"logprobs": stream or details, "top_logprobs": alternatives if stream or details else 0}
    options = stated({**fields, "model": name}, caller) | {"stream": stream}
    form = fields.get("response_format", fields.get("grammar"))
    return Request(**options, prompt=body["inputs"], response_format=form, params=params)


def _drawn(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Greedy, unless it says in any way that it is not."""
    if not flag(fields, "do_sample") and not any(name in fields for name in _DRAWS):
        return {"temperature": 0.0}
    return {"temperature": 1.0} | {name: fields[name] for name in _DRAWS if name in fields}
