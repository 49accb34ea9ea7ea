"""pydantic-ai, by chat completions and by responses: hello world, stream, output types, an agent that asks another."""

from __future__ import annotations

import asyncio
import sys
from typing import Any, Literal

from pydantic import BaseModel
from pydantic_ai import Agent, NativeOutput, RunContext
from pydantic_ai.capabilities import AbstractCapability
from pydantic_ai.models.openai import OpenAIChatModel, OpenAIResponsesModel
from pydantic_ai.providers.openai import OpenAIProvider
from pydantic_ai.settings import ModelSettings

provider = OpenAIProvider(base_url=f"{sys.argv[1]}/v1", api_key="none")
BRIEF = ModelSettings(temperature=0, max_tokens=24)
LONG = ModelSettings(temperature=0, max_tokens=96)


class Verdict(BaseModel):
    """What the board decides."""

    decision: Literal["approve", "reject"]


async def hello_world() -> None:
    agent = Agent(OpenAIChatModel("cfo", provider=provider), instructions="Be concise, reply with one sentence.")
    result = await agent.run('Where does "hello world" come from?', model_settings=BRIEF)
    assert result.output


async def responses() -> None:
    agent = Agent(OpenAIResponsesModel("cfo", provider=provider), instructions="Be concise.")
    result = await agent.run('Where does "hello world" come from?', model_settings=BRIEF)
    assert result.output
    again = await agent.run("Why?", message_history=result.all_messages(), model_settings=BRIEF)
    assert again.output


async def stream() -> None:
    for model in (OpenAIChatModel("cfo", provider=provider), OpenAIResponsesModel("cfo", provider=provider)):
        async with Agent(model).run_stream("How long is our runway?", model_settings=BRIEF) as result:
            pieces = [piece async for piece in result.stream_text(delta=True)]
        assert "".join(pieces)
        assert result.usage.output_tokens > 0


async def tool_output() -> None:
    """The output type as a tool that must be called, which is the default."""
    for model in (OpenAIChatModel("ceo", provider=provider), OpenAIResponsesModel("ceo", provider=provider)):
        result = await Agent(model, output_type=Verdict).run("Approve the budget?", model_settings=LONG)
        assert isinstance(result.output, Verdict)


async def native_output() -> None:
    """The output type as a JSON schema."""
    for model in (OpenAIChatModel("ceo", provider=provider), OpenAIResponsesModel("ceo", provider=provider)):
        result = await Agent(model, output_type=NativeOutput(Verdict)).run("Approve?", model_settings=LONG)
        assert isinstance(result.output, Verdict)


class ToolFirst(AbstractCapability[None]):
    """The first step must call the tool, the next may not."""

    def get_model_settings(self) -> Any:
        def settings(context: RunContext[None]) -> ModelSettings:
            return ModelSettings(tool_choice=["ask_coo"] if context.run_step == 1 else "none")

        return settings


async def two_agents() -> None:
    """The CFO delegates to the COO by a tool."""
    asked: list[str] = []
    coo = Agent(OpenAIChatModel("coo", provider=provider), instructions="You run operations.")
    cfo = Agent(OpenAIChatModel("cfo", provider=provider), capabilities=[ToolFirst()])

    @cfo.tool
    async def ask_coo(context: RunContext[None], topic: Literal["hiring", "costs"]) -> str:
        """Ask the COO about a topic."""
        asked.append(topic)
        return (await coo.run(f"What about {topic}?", usage=context.usage, model_settings=BRIEF)).output

    result = await cfo.run("Can we hire?", model_settings=LONG)
    assert asked
    assert result.output


async def main() -> None:
    for step in (hello_world, responses, stream, tool_output, native_output, two_agents):
        if not sys.argv[2:] or step.__name__ in sys.argv[2:]:
            await step()
            print(step.__name__, flush=True)


asyncio.run(main())
