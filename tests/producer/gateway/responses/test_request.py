"""A request for a response: what is served of it, and what is refused by name."""

from __future__ import annotations

from typing import Any

import pytest

from lorapool.producer.client.request import Request
from lorapool.producer.gateway.caller import ANYONE
from lorapool.producer.gateway.errors import ApiError
from lorapool.producer.gateway.responses.items import messages_of
from lorapool.producer.gateway.responses.request import CreateRequest, create_request

TOOL = {"type": "function", "name": "cash", "parameters": {"type": "object", "properties": {}}, "strict": True}
SCHEMA = {"type": "json_schema", "name": "answer", "schema": {"type": "object"}, "strict": True}


def asked(body: dict[str, Any]) -> CreateRequest:
    return create_request(body, ANYONE, default_max_tokens=64)


def body(**fields: Any) -> dict[str, Any]:
    return {"model": "cfo", "input": "Hi", **fields}


def test_all_that_is_served_becomes_a_job() -> None:
    """Its arguments are those of ``submit``: tools, format and sampling are the job's."""
    request = asked(
        body(
            tools=[TOOL], tool_choice={"type": "function", "name": "cash"}, text={"format": SCHEMA}, temperature=0.5,
            top_p=0.9, max_output_tokens=7, parallel_tool_calls=False, top_logprobs=3,
            include=["message.output_text.logprobs"],
        )
    )  # fmt: skip
    given = Request(messages=messages_of(request.items), params=request.params, **request.options)
    job = given.job(ref="cfo@1", agent="a", client="c")
    assert (0.5, 0.9, 7, True, 3) == (
        job.params.temperature, job.params.top_p, job.params.max_new_tokens, job.params.logprobs,
        job.params.top_logprobs,
    )  # fmt: skip
    assert ("cash", True) == (job.tools[0].name, job.tools[0].strict)
    assert ("required", ("cash",), False) == (job.tool_choice.mode, job.tool_choice.names, job.parallel_tool_calls)
    assert ("json_schema", '{"type": "object"}') == (job.response_format.kind, job.response_format.value)


def test_what_says_nothing_is_taken() -> None:
    """Null everywhere, and values that ask for nothing, are no reason to refuse."""
    nothing = dict.fromkeys(("conversation", "prompt", "reasoning", "tools", "metadata", "text", "include", "store"))
    neutral = {
        "truncation": "disabled",
        "service_tier": "auto",
        "reasoning": {"effort": None},
        "safety_identifier": "u",
    }
    request = asked(body(**nothing | neutral | {"include": ["reasoning.encrypted_content"]}))
    assert request.store
    assert not request.background


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"model": None}, "model"),
        ({"model": 7}, "model"),
        ({"conversation": "conv_1"}, "conversation"),
        ({"reasoning": {"effort": "high"}}, "reasoning"),
        ({"truncation": "auto"}, "truncation"),
        ({"service_tier": "flex"}, "service_tier"),
        ({"max_tool_calls": 3}, "max_tool_calls"),
        ({"tools": [{"type": "web_search"}]}, "tools[0].type"),
        ({"tools": [{**TOOL, "defer_loading": True}]}, "tools[0].defer_loading"),
        ({"tool_choice": {"type": "mcp", "server_label": "x"}}, "tool_choice.type"),
        ({"include": ["file_search_call.results"]}, "include[0]"),
        ({"text": {"verbosity": "low"}}, "text.verbosity"),
        ({"text": {"format": {"type": "grammar"}}}, "text.format"),
        ({"text": {"format": {"type": "json_schema", "name": "x"}}}, "text.format.schema"),
        ({"text": {"colour": "red"}}, "text.colour"),
        ({"stream": "yes"}, "stream"),
        ({"metadata": {"k": 1}}, "metadata.k"),
        ({"metadata": {str(at): "" for at in range(17)}}, "metadata"),
        ({"seed_": 1}, "seed_"),
        ({"background": True, "store": False}, "store"),
    ],
)
def test_what_is_not_served_is_named(fields: dict[str, Any], named: str) -> None:
    """The 400 names the field."""
    with pytest.raises(ApiError) as refusal:
        asked(body(**fields))
    assert (400, named) == (refusal.value.status, refusal.value.param)
    assert str(refusal.value).startswith(named)
