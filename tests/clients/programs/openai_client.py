"""openai: chat, stream, tools between two agents, parse, log probabilities, responses, files and batches."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal

from openai import NotFoundError, OpenAI
from pydantic import BaseModel

BASE = sys.argv[1]
client = OpenAI(base_url=f"{BASE}/v1", api_key="none")
QUESTION = {"role": "user", "content": "How long is our runway?"}
TOPIC = {"type": "string", "enum": ["hiring", "costs"]}
PARAMETERS = {"type": "object", "properties": {"topic": TOPIC}, "required": ["topic"], "additionalProperties": False}
ASK_COO = {"name": "ask_coo", "description": "Ask the COO.", "parameters": PARAMETERS}


class Verdict(BaseModel):
    """What the board decides."""

    decision: Literal["approve", "reject"]
    urgent: bool


def chat() -> None:
    completion = client.chat.completions.create(model="cfo", messages=[QUESTION], max_tokens=16, temperature=0)
    assert completion.choices[0].message.content
    assert completion.usage.completion_tokens <= 16
    try:
        client.chat.completions.create(model="no-such-adapter", messages=[QUESTION])
    except NotFoundError as error:
        assert error.code == "model_not_found"
    else:
        raise AssertionError("an unknown model was answered for")


def stream() -> None:
    asked: dict[str, Any] = {"model": "cfo", "messages": [QUESTION], "max_tokens": 16, "temperature": 0}
    whole = client.chat.completions.create(**asked).choices[0].message.content
    chunks = list(client.chat.completions.create(**asked, stream=True, stream_options={"include_usage": True}))
    assert whole == "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert chunks[-1].usage.completion_tokens > 0


def tools() -> None:
    """The CFO asks the COO by a tool, and answers with what it says."""
    messages: list[Any] = [QUESTION]
    called = client.chat.completions.create(
        model="cfo",
        messages=messages,
        tools=[{"type": "function", "function": ASK_COO}],
        tool_choice={"type": "function", "function": {"name": "ask_coo"}},
        parallel_tool_calls=False,
        max_tokens=64,
        temperature=0,
    )
    [call] = called.choices[0].message.tool_calls
    assert called.choices[0].finish_reason == "tool_calls"
    topic = json.loads(call.function.arguments)["topic"]
    asked = [{"role": "user", "content": f"What about {topic}?"}]
    coo = client.chat.completions.create(model="coo", messages=asked, max_tokens=16, temperature=0)
    said = {"role": "tool", "tool_call_id": call.id, "content": coo.choices[0].message.content}
    messages += [called.choices[0].message, said]
    final = client.chat.completions.create(model="cfo", messages=messages, max_tokens=16, temperature=0)
    assert final.choices[0].message.content


def parse() -> None:
    completion = client.chat.completions.parse(
        model="ceo", messages=[QUESTION], response_format=Verdict, max_tokens=64, temperature=0
    )
    assert isinstance(completion.choices[0].message.parsed, Verdict)


def logprobs() -> None:
    completion = client.chat.completions.create(
        model="cfo", messages=[QUESTION], max_tokens=4, temperature=0, logprobs=True, top_logprobs=3
    )
    told = completion.choices[0].logprobs.content
    assert len(told) == completion.usage.completion_tokens
    assert all(len(token.top_logprobs) == 3 and token.token == token.top_logprobs[0].token for token in told)


def responses() -> None:
    first = client.responses.create(
        model="cfo", instructions="Be brief.", input="How long is our runway?", max_output_tokens=16, temperature=0
    )
    assert first.output_text
    assert first == client.responses.retrieve(first.id)
    second = client.responses.create(
        model="cfo", input="Why?", previous_response_id=first.id, max_output_tokens=8, temperature=0
    )
    items = client.responses.input_items.list(second.id, order="asc").data
    assert ["user", "assistant", "user"] == [item.role for item in items]
    client.responses.delete(first.id)
    try:
        client.responses.retrieve(first.id)
    except NotFoundError:
        pass
    else:
        raise AssertionError("a deleted response was found")


def responses_parse() -> None:
    parsed = client.responses.parse(model="ceo", input="Approve?", text_format=Verdict, temperature=0)
    assert isinstance(parsed.output_parsed, Verdict)


def responses_tools() -> None:
    """The same two agents over the Responses API, streamed."""
    tool = {"type": "function", "strict": True, **ASK_COO}
    asked: dict[str, Any] = {"model": "cfo", "tools": [tool], "temperature": 0, "max_output_tokens": 64}
    with client.responses.stream(
        input=[QUESTION], tool_choice="required", parallel_tool_calls=False, **asked
    ) as events:
        first = events.get_final_response()
    [call] = [item for item in first.output if item.type == "function_call"]
    topic = json.loads(call.arguments)["topic"]
    coo = client.responses.create(model="coo", input=f"What about {topic}?", max_output_tokens=16, temperature=0)
    said = {"type": "function_call_output", "call_id": call.call_id, "output": coo.output_text}
    final = client.responses.create(
        input=[QUESTION, call.to_dict(), said], tool_choice="none", **{**asked, "max_output_tokens": 16}
    )
    assert final.output_text


def responses_background() -> None:
    """Asked in the background, polled; streamed, left in the middle and taken up again; cancelled."""
    asked: dict[str, Any] = {"model": "cfo", "input": "Count.", "background": True, "temperature": 0}
    queued = client.responses.create(**asked, max_output_tokens=8)
    assert queued.status in ("queued", "in_progress")
    while queued.status in ("queued", "in_progress"):
        time.sleep(0.1)
        queued = client.responses.retrieve(queued.id)
    assert queued.status in ("completed", "incomplete")
    assert queued.output_text

    events = []
    for event in client.responses.create(**asked, max_output_tokens=48, stream=True):
        events.append(event)
        if event.type == "response.output_text.delta":
            break
    response_id, last = events[0].response.id, events[-1].sequence_number
    events += client.responses.retrieve(response_id, stream=True, starting_after=last)
    numbers = [event.sequence_number for event in events]
    assert numbers == sorted(set(numbers))
    text = "".join(event.delta for event in events if event.type == "response.output_text.delta")
    assert text == events[-1].response.output_text == client.responses.retrieve(response_id).output_text

    endless = client.responses.create(**asked, max_output_tokens=300)
    cancelled = client.responses.cancel(endless.id)
    assert cancelled.status in ("cancelled", "completed", "incomplete"), cancelled.status


def files_and_batches() -> None:
    body = {"model": "cfo", "messages": [QUESTION], "max_tokens": 4, "temperature": 0}
    lines = [
        {"custom_id": f"line-{at}", "method": "POST", "url": "/v1/chat/completions", "body": body} for at in range(3)
    ]
    with TemporaryDirectory() as folder:
        path = Path(folder, "lines.jsonl")
        path.write_text("".join(json.dumps(line) + "\n" for line in lines))
        file = client.files.create(file=path, purpose="batch")
    assert "line-1" in client.files.content(file.id).text
    batch = client.batches.create(input_file_id=file.id, endpoint="/v1/chat/completions", completion_window="24h")
    while batch.status not in ("completed", "failed", "expired", "cancelled"):
        time.sleep(0.2)
        batch = client.batches.retrieve(batch.id)
    assert batch.status == "completed", batch
    answers = [json.loads(line) for line in client.files.content(batch.output_file_id).text.splitlines()]
    assert {"line-0", "line-1", "line-2"} == {answer["custom_id"] for answer in answers}
    assert all(answer["response"]["body"]["choices"][0]["message"]["content"] for answer in answers)


STEPS = (chat, stream, tools, parse, logprobs, responses, responses_parse, responses_tools, responses_background,
         files_and_batches)  # fmt: skip
for step in STEPS:
    if not sys.argv[2:] or step.__name__ in sys.argv[2:]:
        step()
        print(step.__name__, flush=True)
