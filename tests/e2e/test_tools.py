"""Tools, with a real model and a real server: calls that a grammar holds are always calls, and a loop of two rounds."""

from __future__ import annotations

import json
from typing import Any

import pytest

from lorapool.producer.client.client import Client
from lorapool.shared.job import Result
from lorapool.shared.tools import ToolCall

WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "The weather in a city.",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string", "maxLength": 24}, "unit": {"enum": ["celsius", "fahrenheit"]}},
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
    return arguments


@pytest.mark.parametrize("adapter", [None, "cfo"])
async def test_required_calls_are_calls(pool: Client, adapter: str | None) -> None:
    """Of the base model and of an adapter, at any temperature: nothing but calls that their schemas hold."""
    asked = {"messages": QUESTION, "tools": [WEATHER, CLOCK], "tool_choice": "required", "max_new_tokens": 120}
    jobs = [
        await pool.submit(adapter, **asked, temperature=temperature, seed=seed, parallel_tool_calls=False)
        for seed, temperature in enumerate((0.0, 0.7, 1.5))
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


async def test_a_strict_tools_call_is_held_once_it_has_begun(pool: Client) -> None:
    """Told to write a call, with a free choice: if it begins one, that is one; else it is text."""
    strict = {"type": "function", "function": {**WEATHER["function"], "strict": True}}  # type: ignore[dict-item]
    begun = [*QUESTION, {"role": "assistant", "content": "I will ask.\n<tool_call>"}]
    for messages in (QUESTION, begun):
        result = await _answer(pool, messages, tools=[strict], tool_choice="auto", temperature=1.0, seed=3)
        for call in result.tool_calls:
            if result.finish_reason != "length":
                valid(call)


async def test_a_call_that_the_tokens_do_not_suffice_for(pool: Client) -> None:
    """What was written of it stands, as OpenAI's API has it, and the finish reason says why."""
    result = await _answer(pool, QUESTION, tool_choice="required", max_new_tokens=24)
    assert "length" == result.finish_reason
    assert [call.name for call in result.tool_calls] in ([], ["get_weather"])


async def _answer(pool: Client, messages: list[dict[str, Any]], **asked: Any) -> Result:
    job = await pool.submit(None, messages=messages, **{"tools": [WEATHER], "max_new_tokens": 120, **asked})
    return await job.result(timeout=120)
