"""Requests: what a caller gets told when the arguments are wrong, and what becomes of them when they are right."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from lorapool.producer.client.request import Request, sampling_params
from lorapool.shared.errors import InvalidRequest
from lorapool.shared.job import Job


def _job(**arguments: Any) -> Job:
    return Request.from_arguments(arguments).job(ref="cfo@1.0.0", agent="board", client="client-1")


@pytest.mark.parametrize(
    ("params", "expected"),
    [
        ({"temperature": 5}, ("temperature", "5", "less than or equal to 2")),
        ({"top_p": 0}, ("top_p", "0", "greater than 0")),
        ({"max_new_tokens": 0}, ("max_new_tokens", "0", "greater than or equal to 1")),
        ({"seed": -1}, ("seed", "-1", "greater than or equal to 0")),
        ({"stop": ["."] * 17}, ("stop", "at most 16")),
        ({"min_new_tokens": 200}, ("min_new_tokens 200", "max_new_tokens 128")),
        ({"top_logprobs": 2}, ("top_logprobs 2", "logprobs = True")),
        ({"logprobs": True, "top_logprobs": 21}, ("top_logprobs", "21", "less than or equal to 20")),
        ({"logit_bias": {5: 101}}, ("logit_bias", "101", "less than or equal to 100")),
        ({"temperature": float("nan")}, ("temperature", "nan")),
    ],
)
def test_out_of_range_names_field_value_and_expectation(params: dict[str, Any], expected: tuple[str, ...]) -> None:
    """One line says which field, which value, and what would be right."""
    with pytest.raises(InvalidRequest) as caught:
        sampling_params(params)
    assert all(part in str(caught.value) for part in expected), str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "nearest"),
    [("tempertaure", "temperature"), ("max_tokens", "max_new_tokens"), ("stop_sequences", "stop"), ("Seed", "seed")],
)
def test_an_unknown_parameter_gets_the_nearest_valid_one(name: str, nearest: str) -> None:
    """A slip of the pen, or another API's name, is answered with ours."""
    with pytest.raises(InvalidRequest, match=f"{name} = 1: unknown parameter; did you mean '{nearest}'"):
        _job(prompt="x", **{name: 1})


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ({}, "exactly one of prompt, prompt_ids and messages"),
        ({"prompt": "a", "messages": [{"role": "user", "content": "b"}]}, "exactly one of prompt"),
        ({"prompt": "a", "response_format": {}}, "response_format: kind"),
        ({"prompt": "a", "tools": [{}]}, "tools: name"),
        ({"prompt": "a", "tools": [{"name": "f"}]}, "tools go with messages"),
        ({"prompt_ids": []}, "prompt_ids = (): "),
        ({"messages": "hello"}, "messages = 'hello': expected a list"),
        ({"messages": [{"role": "boss", "content": "b"}]}, "role = 'boss'"),
        ({"prompt": "a", "deadline": -1}, "deadline = -1: expected seconds"),
        ({"prompt": "a", "delay": "soon"}, "delay = 'soon': expected seconds"),
        ({"prompt": "a", "priority": "urgent"}, "priority = 'urgent'"),
        ({"prompt": "a", "agent": "no spaces"}, "agent = 'no spaces'"),
        ({"prompt": "a", "job_id": "3.x"}, "marks a full id"),
        ({"prompt": "a", "job_id": "a/b"}, "job id 'a/b' is not a valid name"),
    ],
)
def test_a_wrong_argument_is_named(arguments: dict[str, Any], expected: str) -> None:
    """Every argument of submit is checked before anything is sent."""
    with pytest.raises(InvalidRequest) as caught:
        _job(**arguments)
    assert expected in str(caught.value)


def test_a_right_request_becomes_the_job_it_says() -> None:
    """Units become milliseconds, one stop string a tuple, defaults stay defaults."""
    job = _job(prompt="hi", stop="\n", max_new_tokens=8, delay=timedelta(seconds=2), deadline=1.5, job_id="mine")
    assert (job.id, job.ref, job.agent, job.client) == ("mine", "cfo@1.0.0", "board", "client-1")
    assert (job.delay_ms, job.deadline_ms) == (2000, 1500)
    assert (job.params.stop, job.params.max_new_tokens, job.params.temperature) == (("\n",), 8, 0.0)


@pytest.mark.parametrize(
    "item", [Request("cfo", "hi"), {"adapter": "cfo", "prompt": "hi"}, ("cfo", "hi"), ["cfo", "hi"]]
)
def test_a_request_may_be_written_in_three_ways(item: Any) -> None:
    """A Request, a dict of submit's arguments, a pair."""
    assert (Request.of(item).adapter, Request.of(item).prompt) == ("cfo", "hi")


def test_what_is_no_request_is_refused() -> None:
    """A bare string among the requests is not taken for anything."""
    with pytest.raises(InvalidRequest, match="expected a Request, a dict"):
        Request.of("hello")
