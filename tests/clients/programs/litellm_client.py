"""litellm as a library: completion, stream, tools between two agents, structured output, responses."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from typing import Any, Literal

os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"  # it would ask the network for prices, and wait

import litellm
from pydantic import BaseModel

ADDRESS: dict[str, Any] = {"api_base": f"{sys.argv[1]}/v1", "api_key": "none", "temperature": 0}
QUESTION = {"role": "user", "content": "Hello, how are you?"}
PARAMETERS = {
    "type": "object",
    "properties": {"topic": {"type": "string", "enum": ["hiring", "costs"]}},
    "required": ["topic"],
}
ASK_COO = {"type": "function", "function": {"name": "ask_coo", "description": "Ask.", "parameters": PARAMETERS}}


class Verdict(BaseModel):
    """What the board decides."""

    decision: Literal["approve", "reject"]


def completion() -> None:
    answer = litellm.completion(model="openai/cfo", messages=[QUESTION], max_tokens=16, **ADDRESS)
    assert answer.choices[0].message.content
    assert answer.usage.total_tokens > 0


def stream() -> None:
    chunks = litellm.completion(model="openai/cfo", messages=[QUESTION], max_tokens=16, stream=True, **ADDRESS)
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks)

    async def read() -> str:
        chunks = await litellm.acompletion(
            model="openai/cfo", messages=[QUESTION], max_tokens=16, stream=True, **ADDRESS
        )
        return "".join([chunk.choices[0].delta.content or "" async for chunk in chunks])

    assert asyncio.run(read())


def two_agents() -> None:
    """The CFO asks the COO by a tool, and answers with what it says."""
    messages: list[Any] = [QUESTION]
    named = {"type": "function", "function": {"name": "ask_coo"}}
    called = litellm.completion(
        model="openai/cfo", messages=messages, tools=[ASK_COO], tool_choice=named, max_tokens=64, **ADDRESS
    )
    call, *_ = called.choices[0].message.tool_calls
    asked = [{"role": "user", "content": f"What about {json.loads(call.function.arguments)['topic']}?"}]
    coo = litellm.completion(model="openai/coo", messages=asked, max_tokens=16, **ADDRESS)
    said = {"role": "tool", "tool_call_id": call.id, "content": coo.choices[0].message.content}
    messages += [called.choices[0].message.model_dump(), said]
    final = litellm.completion(model="openai/cfo", messages=messages, max_tokens=16, **ADDRESS)
    assert final.choices[0].message.content


def structured() -> None:
    answer = litellm.completion(
        model="openai/ceo", messages=[QUESTION], response_format=Verdict, max_tokens=64, **ADDRESS
    )
    Verdict.model_validate_json(answer.choices[0].message.content)


def responses() -> None:
    answer = litellm.responses(model="openai/cfo", input="How long is our runway?", max_output_tokens=16, **ADDRESS)
    assert answer.output[0].content[0].text
    events = list(
        litellm.responses(model="openai/cfo", input="How long?", max_output_tokens=16, stream=True, **ADDRESS)
    )
    assert events[-1].response.output


for step in (completion, stream, two_agents, structured, responses):
    if not sys.argv[2:] or step.__name__ in sys.argv[2:]:
        step()
        print(step.__name__, flush=True)
