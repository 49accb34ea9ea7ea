"""openai-agents, over the Responses API as it does by default: one agent, a stream, an agent that asks another."""

from __future__ import annotations

import asyncio
import sys
from typing import Literal

from agents import Agent, ModelSettings, Runner, function_tool, set_default_openai_client, set_tracing_disabled
from openai import AsyncOpenAI
from pydantic import BaseModel

set_default_openai_client(AsyncOpenAI(base_url=f"{sys.argv[1]}/v1", api_key="none"))
set_tracing_disabled(True)  # traces go to OpenAI
# A small model goes on and on, and an answer that is cut is an error here: so it ends with its first sentence.
BRIEF = ModelSettings(temperature=0, max_tokens=200, extra_body={"stop": ["."]})


class Verdict(BaseModel):
    """What the board decides."""

    decision: Literal["approve", "reject"]


async def hello_world() -> None:
    agent = Agent(name="Assistant", instructions="You are a helpful assistant", model="cfo", model_settings=BRIEF)
    result = await Runner.run(agent, "Write a haiku about recursion in programming.")
    assert result.final_output
    again = await Runner.run(agent, [*result.to_input_list(), {"role": "user", "content": "Another."}])
    assert again.final_output


async def stream() -> None:
    agent = Agent(name="Assistant", instructions="You are a helpful assistant", model="cfo", model_settings=BRIEF)
    result = Runner.run_streamed(agent, "How long is our runway?")
    deltas = [
        event.data.delta
        async for event in result.stream_events()
        if event.type == "raw_response_event" and event.data.type == "response.output_text.delta"
    ]
    assert result.final_output == "".join(deltas) != ""


async def structured() -> None:
    agent = Agent(name="Board", model="ceo", output_type=Verdict, model_settings=ModelSettings(temperature=0))
    result = await Runner.run(agent, "Approve the budget?")
    assert isinstance(result.final_output, Verdict)


async def two_agents() -> None:
    """The CFO must ask the COO, an agent that is a tool, and then says its own word."""
    asked: list[str] = []
    coo = Agent(name="COO", instructions="You run operations.", model="coo", model_settings=BRIEF)

    @function_tool
    async def ask_coo(topic: Literal["hiring", "costs"]) -> str:
        """Ask the COO about a topic."""
        asked.append(topic)
        result = await Runner.run(coo, f"What about {topic}?")
        return str(result.final_output)

    forced = ModelSettings(temperature=0, max_tokens=96, tool_choice="ask_coo", parallel_tool_calls=False)
    cfo = Agent(name="CFO", model="cfo", tools=[ask_coo], model_settings=forced,
                tool_use_behavior="stop_on_first_tool")  # fmt: skip
    first = await Runner.run(cfo, "Can we hire?")
    assert asked
    assert first.final_output
    speaker = Agent(name="CFO", model="cfo", model_settings=BRIEF)
    last = await Runner.run(speaker, [*first.to_input_list(), {"role": "user", "content": "So?"}])
    assert last.final_output


async def handoff() -> None:
    """A forced handoff from one agent to the other, who answers."""
    cfo = Agent(name="CFO", instructions="You keep the money.", model="cfo", model_settings=BRIEF)
    forced = ModelSettings(temperature=0, max_tokens=96, tool_choice="required", parallel_tool_calls=False)
    triage = Agent(name="Triage", model="ceo", handoffs=[cfo], model_settings=forced)
    result = await Runner.run(triage, "How long is our runway?")
    assert result.last_agent.name == "CFO"
    assert result.final_output


async def main() -> None:
    for step in (hello_world, stream, structured, two_agents, handoff):
        if not sys.argv[2:] or step.__name__ in sys.argv[2:]:
            await step()
            print(step.__name__, flush=True)


asyncio.run(main())
