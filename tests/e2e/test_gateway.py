"""OpenAI's own client through the gateway to the real model: what it reads is what the Python client reads."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
from openai import AsyncOpenAI

from lorapool.producer.client.client import Client
from lorapool.producer.gateway.server import serve
from lorapool.producer.gateway.settings import GatewaySettings
from lorapool.shared.tasks import cancel_and_wait

ASK: dict[str, Any] = {"model": "cfo", "messages": [{"role": "user", "content": "How long is our runway?"}]}
SCHEMA = {
    "type": "object",
    "properties": {"months": {"type": "integer"}, "sure": {"type": "boolean"}},
    "required": ["months", "sure"],
    "additionalProperties": False,
}
LOOK = {"type": "function", "function": {"name": "look_up", "parameters": SCHEMA}}


@pytest.fixture
async def openai(pool: Client) -> AsyncIterator[Any]:
    where: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    serving = asyncio.create_task(serve(pool, GatewaySettings(port=0, drain_s=1), ready=where.set_result))
    async with AsyncOpenAI(base_url=f"{await where}/v1", api_key="none", max_retries=0, timeout=120) as client:
        yield client
    await cancel_and_wait(serving)


async def test_the_same_answer_by_every_way(openai: Any, pool: Client) -> None:
    """Greedy, at once and streamed, with log probabilities: token by token what the Python client gets."""
    asked = {**ASK, "temperature": 0, "max_tokens": 12, "logprobs": True, "top_logprobs": 3}
    job = await pool.submit("cfo", messages=ASK["messages"], max_new_tokens=12, logprobs=True, top_logprobs=3)
    want = await job.result(120)
    whole = await openai.chat.completions.create(**asked)
    stream = await openai.chat.completions.create(**asked, stream=True, stream_options={"include_usage": True})
    chunks = [chunk async for chunk in stream]
    choices = [chunk.choices[0] for chunk in chunks if chunk.choices]
    assert want.text == whole.choices[0].message.content
    assert want.text == "".join(choice.delta.content or "" for choice in choices)
    logprobs = [entry for choice in choices if choice.logprobs for entry in choice.logprobs.content]
    assert whole.choices[0].logprobs.content == logprobs
    assert [token.logprob for token in want.token_logprobs or ()] == pytest.approx(
        [entry.logprob for entry in logprobs], abs=1e-4
    )
    assert {3} == {len(entry.top_logprobs) for entry in logprobs}
    assert want.text.encode() == b"".join(bytes(entry.bytes) for entry in logprobs)
    assert want.usage.completion_tokens == whole.usage.completion_tokens == chunks[-1].usage.completion_tokens
    assert whole.system_fingerprint == f"fp_{want.digest[:12]}"


async def test_a_structured_answer(openai: Any) -> None:
    """A JSON schema holds the answer, with an adapter, at temperature 1."""
    form = {"type": "json_schema", "json_schema": {"name": "runway", "schema": SCHEMA, "strict": True}}
    answer = await openai.chat.completions.create(**ASK, response_format=form, max_tokens=60, seed=3)
    assert "stop" == answer.choices[0].finish_reason
    assert {"months", "sure"} == set(json.loads(answer.choices[0].message.content))


async def test_a_call_that_is_required(openai: Any) -> None:
    """The call comes parsed, at once and as a stream, and is the same; the answer says that it ended for it."""
    asked = {
        **ASK,
        "tools": [LOOK],
        "tool_choice": "required",
        "parallel_tool_calls": False,
        "max_tokens": 80,
        "seed": 5,
    }
    whole = await openai.chat.completions.create(**asked)
    [call] = whole.choices[0].message.tool_calls
    assert ("tool_calls", "look_up") == (whole.choices[0].finish_reason, call.function.name)
    stream = await openai.chat.completions.create(**asked, stream=True)
    deltas = [delta for chunk in [c async for c in stream] for delta in (chunk.choices[0].delta.tool_calls or ())]
    assert "look_up" == "".join(delta.function.name or "" for delta in deltas)
    assert call.function.arguments == "".join(delta.function.arguments or "" for delta in deltas)
    assert {"months", "sure"} >= set(json.loads(call.function.arguments))


async def test_token_ids_and_echo(openai: Any) -> None:
    """Plain completions take token ids, and give back a text prompt before its answer."""
    ids = await openai.completions.create(
        model="_base", prompt=[504, 3575, 282], max_tokens=4, temperature=0, logprobs=2
    )
    assert 4 == len(ids.choices[0].logprobs.tokens) == ids.usage.completion_tokens
    echoed = await openai.completions.create(model="cfo", prompt="Our plan is", echo=True, max_tokens=4)
    assert echoed.choices[0].text.startswith("Our plan is")
