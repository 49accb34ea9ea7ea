"""huggingface_hub's InferenceClient: chat, stream, tools between two agents, JSON schema, text generation."""

from __future__ import annotations

import json
import sys
from typing import Any

from huggingface_hub import InferenceClient

client = InferenceClient(base_url=sys.argv[1])
QUESTION = {"role": "user", "content": "What is the capital of France?"}
PARAMETERS = {
    "type": "object",
    "properties": {"topic": {"type": "string", "enum": ["hiring", "costs"]}},
    "required": ["topic"],
}
ASK_COO: Any = {"type": "function", "function": {"name": "ask_coo", "description": "Ask.", "parameters": PARAMETERS}}


def chat_completion() -> None:
    answer = client.chat_completion([QUESTION], model="cfo", max_tokens=16, temperature=0)
    assert answer.choices[0].message.content
    again = client.chat.completions.create(model="cfo", messages=[QUESTION], max_tokens=16, temperature=0)
    assert answer.choices[0].message.content == again.choices[0].message.content


def stream() -> None:
    chunks = client.chat_completion([QUESTION], model="cfo", max_tokens=16, temperature=0, stream=True)
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)


def two_agents() -> None:
    """The CFO asks the COO by a tool, and answers with what it says."""
    named: Any = {"function": {"name": "ask_coo"}, "type": "function"}
    called = client.chat_completion(
        [QUESTION], model="cfo", tools=[ASK_COO], tool_choice=named, max_tokens=64, temperature=0
    )
    call, *_ = called.choices[0].message.tool_calls or []
    topic = json.loads(call.function.arguments)["topic"]
    asked = [{"role": "user", "content": f"What about {topic}?"}]
    coo = client.chat_completion(asked, model="coo", max_tokens=16, temperature=0)
    heard: list[Any] = [
        QUESTION,
        {"role": "assistant", "content": "", "tool_calls": [call]},
        {"role": "tool", "tool_call_id": call.id, "content": coo.choices[0].message.content},
    ]
    assert client.chat_completion(heard, model="cfo", max_tokens=16, temperature=0).choices[0].message.content


def structured() -> None:
    schema: dict[str, Any] = {"type": "object", "properties": {"yes": {"type": "boolean"}}, "required": ["yes"]}
    schema["additionalProperties"] = False
    form: Any = {"type": "json_schema", "json_schema": {"name": "verdict", "schema": schema, "strict": True}}
    answer = client.chat_completion([QUESTION], model="ceo", response_format=form, max_tokens=64, temperature=0)
    assert isinstance(json.loads(answer.choices[0].message.content)["yes"], bool)


def text_generation() -> None:
    text = client.text_generation("The huggingface_hub library is ", max_new_tokens=12, adapter_id="cfo")
    assert text
    pieces = client.text_generation(
        "The huggingface_hub library is ", max_new_tokens=12, adapter_id="cfo", stream=True, details=True
    )
    tokens = list(pieces)
    assert text == tokens[-1].generated_text
    assert tokens[-1].details.generated_tokens == sum(not token.token.special for token in tokens)


for step in (chat_completion, stream, two_agents, structured, text_generation):
    if not sys.argv[2:] or step.__name__ in sys.argv[2:]:
        step()
        print(step.__name__, flush=True)
