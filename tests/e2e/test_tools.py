"""Tools, with a real model and a real server: calls that a grammar holds are always calls, and a loop of two rounds."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

from lorapool.producer.client.client import Client
from lorapool.shared.job import Result
from lorapool.shared.tools import ToolCall
from tests.length import at_length

CITY = "[A-Z][a-z ]{1,20}"
WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "The weather in a city.",
        "parameters": {
            "type": "object",
            "properties": {
                "city": {"type": "string", "pattern": f"^{CITY}$"},
                "unit": {"enum": ["celsius", "fahrenheit"]},
            },
            "required": ["city", "unit"],
        },
    },
}
CLOCK = {"type": "function", "function": {"name": "get_time", "description": "The time of day."}}
QUESTION = [{"role": "user", "content": "What is the weather in Paris?"}]


def valid(call: ToolCall) -> dict[str, Any]:
    """The arguments of a call that one of the two tools takes."""
    arguments: dict[str, Any] = json.loads(call.arguments)
    if call.name == "get_time":
        assert arguments == {}
    else:
        assert call.name == "get_weather"
        assert arguments.keys() == {"city", "unit"}
        assert arguments["unit"] in {"celsius", "fahrenheit"}
        assert re.fullmatch(CITY, arguments["city"])
    return arguments


@pytest.mark.parametrize("adapter", [None, "cfo"])
async def test_required_calls_are_calls(pool: Client, adapter: str | None) -> None:
    """Of the base model and of an adapter, at any temperature: nothing but calls that their schemas hold."""
    asked = {"messages": QUESTION, "tools": [WEATHER, CLOCK], "tool_choice": "required", "max_new_tokens": 120}
    jobs = [
        await pool.submit(adapter, **asked, temperature=temperature, seed=seed, parallel_tool_calls=False)
        for seed, temperature in enumerate((0.0, 0.7, 1.5) * at_length(1, 8))
    ]
    for job in jobs:
        result = await job.result(timeout=120)
        assert ("", "eos_token", 1) == (result.text, result.finish_reason, len(result.tool_calls)), result
        valid(result.tool_calls[0])


async def test_a_named_call_is_of_that_tool(pool: Client) -> None:
    """Whatever the question is."""
    named = {"type": "function", "function": {"name": "get_time"}}
    job = await pool.submit(
        None, messages=QUESTION, tools=[WEATHER, CLOCK], tool_choice=named, parallel_tool_calls=False
    )
    result = await job.result(timeout=120)
    assert [("get_time", "{}")] == [(call.name, call.arguments) for call in result.tool_calls]


async def test_a_streamed_call_comes_in_pieces(pool: Client) -> None:
    """Id and name first, then the arguments as they are written; together they are the result's."""
    job = await pool.submit(
        None, messages=QUESTION, tools=[WEATHER], tool_choice="required", parallel_tool_calls=False, stream=True
    )
    pieces = [piece async for delta in job.stream(timeout=120) for piece in delta.more.tool_calls]
    result = await job.result(timeout=120)
    [call] = result.tool_calls
    assert (0, call.id, "get_weather") == (pieces[0].index, pieces[0].id, pieces[0].name)
    assert call.arguments == "".join(piece.arguments for piece in pieces)
    assert len(pieces) > 3
    valid(call)


async def test_a_loop_of_two_rounds(pool: Client) -> None:
    """The call goes back with what came of it, and the model answers with text."""
    first = await _answer(pool, QUESTION, tool_choice="required", parallel_tool_calls=False)
    [call] = first.tool_calls
    asked = {"role": "assistant", "content": "", "tool_calls": [call.model_dump()]}
    told = {"role": "tool", "tool_call_id": call.id, "content": '{"temperature": 21, "sky": "clear"}'}
    second = await _answer(pool, [*QUESTION, asked, told], tool_choice="none", max_new_tokens=24)
    assert () == second.tool_calls
    assert "<tool_call>" not in second.text
    assert second.text
    assert second.usage.prompt_tokens < first.usage.prompt_tokens  # tools that may not be called are not shown


async def test_a_free_choice_with_a_strict_tool(pool: Client) -> None:
    """After a few calls the model writes one of itself; once it has begun, the schema holds it."""
    tool = {"type": "function", "function": {**WEATHER["function"], "strict": True}}  # type: ignore[dict-item]
    before = [message for city in ("Rome", "Oslo", "Bern") for message in _called(city)]
    result = await _answer(pool, [*before, *QUESTION], tools=[tool], parallel_tool_calls=False)
    assert ("", "eos_token", ["get_weather"]) == (
        result.text, result.finish_reason, [call.name for call in result.tool_calls]
    ), result  # fmt: skip
    valid(result.tool_calls[0])


async def test_an_answer_in_a_form_or_calls(pool: Client) -> None:
    """With a free choice and a response format the answer is JSON of that form, or a call."""
    form = {"kind": "json_schema", "value": '{"type": "object", "properties": {"hot": {"type": "boolean"}}}'}
    result = await _answer(pool, QUESTION, response_format=form, parallel_tool_calls=False)
    assert bool(result.text) != bool(result.tool_calls)
    for call in result.tool_calls:
        valid(call)
    assert not result.text or json.loads(result.text).keys() <= {"hot"}


async def test_a_call_that_the_tokens_do_not_suffice_for(pool: Client) -> None:
    """What was written of it stands, as OpenAI's API has it, and the finish reason says why."""
    result = await _answer(pool, QUESTION, tool_choice="required", max_new_tokens=24)
    assert "length" == result.finish_reason
    assert [call.name for call in result.tool_calls] in ([], ["get_weather"])


async def _answer(pool: Client, messages: list[dict[str, Any]], **asked: Any) -> Result:
    job = await pool.submit(None, messages=messages, **{"tools": [WEATHER], "max_new_tokens": 120, **asked})
    return await job.result(timeout=120)


def _called(city: str) -> list[dict[str, Any]]:
    """A question of before, and the call that it led to."""
    arguments = json.dumps({"city": city, "unit": "celsius"})
    call = {"id": f"call_{city}", "name": "get_weather", "arguments": arguments}
    question = {"role": "user", "content": f"What is the weather in {city}?"}
    return [question, {"role": "assistant", "content": "", "tool_calls": [call]}]
