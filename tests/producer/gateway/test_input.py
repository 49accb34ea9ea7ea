"""What a body asks, made requests of the queue: pure, no server."""

from __future__ import annotations

from typing import Any

import pytest

from lorapool.producer.gateway.caller import ANYONE, Caller
from lorapool.producer.gateway.chat_input import CHAT_FIELDS, chat_request
from lorapool.producer.gateway.completion_id import CompletionId, keyed
from lorapool.producer.gateway.completion_input import PLAIN_FIELDS, completion_request, prompts_of
from lorapool.producer.gateway.errors import ApiError
from lorapool.producer.gateway.generate_input import GENERATE_FIELDS, generate_request, parameters_of
from lorapool.producer.gateway.openapi import SCHEMAS
from lorapool.producer.gateway.parameters import KNOWN, as_asked
from lorapool.shared.errors import InvalidRequest
from lorapool.shared.job import Job

ASK: dict[str, Any] = {"model": "cfo", "messages": [{"role": "user", "content": "How long?"}]}
PLAIN: dict[str, Any] = {"model": "cfo", "prompt": "How long?"}


def jobs(body: dict[str, Any], read: Any = chat_request, caller: Caller = ANYONE) -> list[Job]:
    """As they are submitted; a refusal in the caller's words."""
    try:
        requests = read(body, caller)
        return [request.job(ref="_base", agent="anonymous", client="gateway") for request in requests]
    except InvalidRequest as error:
        raise as_asked(error, body) from None


@pytest.mark.parametrize(
    ("change", "param"),
    [
        ({"temperature": 3}, "temperature"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"max_completion_tokens": 0}, "max_completion_tokens"),
        ({"n": 0}, "n"),
        ({"n": 129}, "n"),
        ({"top_logprobs": 2}, "top_logprobs"),
        ({"logit_bias": {"x": 1}}, "logit_bias"),
        ({"stream_options": {"include_usage": True}}, "stream_options"),
        ({"temprature": 1}, "temprature"),
        ({"reasoning_effort": "high"}, "reasoning_effort"),
        ({"modalities": ["audio"]}, "modalities"),
        ({"functions": [{"name": "f"}]}, "functions"),
        ({"metadata": {"a": 1}}, "metadata.a"),
        ({"messages": []}, "messages"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, "messages.0.content.0"),
        ({"messages": [{"role": "user"}]}, "messages.0.content"),
        ({"messages": [{"role": "user", "content": "x", "mood": 1}]}, "messages.0.mood"),
        ({"model": None}, "model"),
        ({"stop": [""]}, "stop.0"),
        ({"priority": "now"}, "priority"),
        ({"seed": "x"}, "seed"),
        ({"user": 5}, "user"),
        ({"deadline": -1}, "deadline"),
        ({"response_format": {"type": "poem"}}, "response_format"),
        ({"tools": [{"type": "custom"}]}, "tools"),
        ({"tool_choice": "required"}, "tool_choice"),
        ({"logprobs": 3}, "logprobs"),
    ],
)
def test_what_is_not_served_is_named(change: dict[str, Any], param: str) -> None:
    """400, with the field as the caller wrote it; never ignored."""
    with pytest.raises(ApiError) as refused:
        jobs({**ASK, **change})
    assert (400, param) == (refused.value.status, refused.value.param), refused.value
    assert param.rpartition(".")[2] in str(refused.value)


@pytest.mark.parametrize(
    ("change", "param"),
    [
        ({"suffix": "x"}, "suffix"),
        ({"best_of": 2}, "best_of"),
        ({"echo": True, "logprobs": 1}, "echo"),
        ({"echo": True, "prompt": [1]}, "echo"),
        ({"prompt": None}, "prompt"),
        ({"prompt": []}, "prompt"),
        ({"prompt": [1, "a"]}, "prompt"),
        ({"prompt": [[1], []]}, "prompt"),
        ({"prompt": ["a"] * 129}, "prompt"),
        ({"prompt": ["a"] * 65, "n": 2}, "n"),
        ({"logprobs": 21}, "logprobs"),
        ({"messages": []}, "messages"),
    ],
)
def test_what_plain_completions_do_not_serve_is_named(change: dict[str, Any], param: str) -> None:
    """As for chats."""
    with pytest.raises(ApiError) as refused:
        jobs({**PLAIN, **change}, completion_request)
    assert (400, param) == (refused.value.status, refused.value.param), refused.value


def test_prompts_are_text_or_ids() -> None:
    """One text, several, a list of token ids, or several of those: each a job, n times."""
    assert ["a"] == prompts_of({"prompt": "a"})
    assert [[1, 2]] == prompts_of({"prompt": [1, 2]})
    found = jobs({**PLAIN, "prompt": [[1, 2], [3]], "n": 2}, completion_request)
    assert [(1, 2), (1, 2), (3,), (3,)] == [job.prompt_ids for job in found]
    assert 16 == found[0].params.max_new_tokens  # OpenAI's own


def test_a_null_is_not_there() -> None:
    """Every field of OpenAI's that is null is as if it were not sent."""
    nulls = dict.fromkeys(["n", "stop", "seed", "tools", "logprobs", "audio", "prediction", "reasoning_effort", "user"])
    [job] = jobs({**ASK, **nulls, "max_tokens": None})
    assert 2048 == job.params.max_new_tokens


def test_user_is_the_agent_where_there_are_no_keys() -> None:
    """A name as it is, anything else as one made of it; with a key it is the key's agent."""
    assert "board-7" == jobs({**ASK, "user": "board-7"})[0].agent
    made = jobs({**ASK, "user": "a b@c"})[0].agent
    assert made.startswith("user-") and made == jobs({**ASK, "user": "a b@c"})[0].agent
    assert "desk" == jobs({**ASK, "user": "board-7"}, caller=Caller("k", "desk"))[0].agent


def test_every_field_stands_on_the_page() -> None:
    """The OpenAPI page names exactly the fields that are read."""
    for schema, known in (("ChatRequest", KNOWN | CHAT_FIELDS), ("CompletionRequest", KNOWN | PLAIN_FIELDS)):
        assert known == set(SCHEMAS[schema]["properties"]), schema
    parameters = SCHEMAS["GenerateRequest"]["properties"]["parameters"]["properties"]
    assert GENERATE_FIELDS == set(parameters)


def test_generate_is_greedy_unless_told() -> None:
    """LoRAX's rule: do_sample, or any of what shapes a draw, makes it one."""

    def temperature(**parameters: Any) -> float:
        fields = parameters_of({"parameters": parameters})
        request = generate_request({"inputs": "x"}, fields, ANYONE, default_max_tokens=9, stream=False)
        return request.job(ref="_base", agent="a", client="c").params.temperature

    assert (0.0, 1.0, 1.0, 0.5) == (
        temperature(),
        temperature(do_sample=True),
        temperature(top_k=3),
        temperature(temperature=0.5),
    )


@pytest.mark.parametrize("name", ["truncate", "watermark", "typical_p", "merged_adapters", "api_token", "best_of"])
def test_generate_refuses_by_name(name: str) -> None:
    """What LoRAX has and a pool has not is named."""
    with pytest.raises(ApiError, match=name):
        parameters_of({"parameters": {name: 5}})


def test_an_id_leads_to_its_jobs() -> None:
    """One job bears the id itself, several are numbered; what is no id of ours is 404."""
    one, several = CompletionId("chatcmpl", "j1"), CompletionId("cmpl", "j1", 3)
    assert ("chatcmpl-j1", ["j1"]) == (str(one), one.jobs)
    assert ("cmpl-j1.n3", ["j1-0", "j1-1", "j1-2"]) == (str(several), several.jobs)
    assert [one, several] == [CompletionId.parse(str(one)), CompletionId.parse(str(several))]
    for text in ("chatcmpl-", "resp-1", "cmpl-j.n999", "cmpl-../x", "x" * 10_000):
        with pytest.raises(ApiError) as unknown:
            CompletionId.parse(text)
        assert 404 == unknown.value.status


def test_a_key_is_its_callers_alone() -> None:
    """The same Idempotency-Key of two callers is two jobs."""
    assert keyed("k", Caller("a", "x")) == keyed("k", Caller("a", "y")) != keyed("k", Caller("b", "x"))
