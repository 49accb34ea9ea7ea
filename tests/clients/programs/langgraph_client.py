"""langchain-openai and LangGraph: invoke, stream, structured output, a graph of two agents with a tool."""

from __future__ import annotations

import asyncio
import sys
from typing import Any, Literal

from langchain_core.messages import HumanMessage, ToolMessage
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI
from langgraph.graph import END, START, MessagesState, StateGraph
from langgraph.prebuilt import ToolNode
from pydantic import BaseModel

BASE = sys.argv[1]


class Verdict(BaseModel):
    """What the board decides."""

    decision: Literal["approve", "reject"]


def model(name: str, tokens: int = 24, **options: Any) -> ChatOpenAI:
    return ChatOpenAI(base_url=f"{BASE}/v1", api_key="none", model=name, temperature=0, max_tokens=tokens, **options)


def invoke() -> None:
    messages = [("system", "You translate English to French."), ("human", "I love programming.")]
    answer = model("cfo").invoke(messages)
    assert answer.content
    assert answer.usage_metadata["output_tokens"] > 0


def stream() -> None:
    async def read() -> str:
        return "".join([chunk.text async for chunk in model("cfo").astream("How long is our runway?")])

    assert asyncio.run(read()) == "".join(chunk.text for chunk in model("cfo").stream("How long is our runway?")) != ""


def responses() -> None:
    answer = model("cfo", use_responses_api=True).invoke("How long is our runway?")
    assert answer.text
    assert "".join(chunk.text for chunk in model("cfo", use_responses_api=True).stream("How long?"))


def structured() -> None:
    for method in ("json_schema", "function_calling"):
        verdict = model("ceo", 96).with_structured_output(Verdict, method=method).invoke("Approve the budget?")
        assert isinstance(verdict, Verdict)


@tool
def ask_coo(topic: Literal["hiring", "costs"]) -> str:
    """Ask the COO about a topic."""
    return model("coo").invoke(f"What about {topic}?").text


def two_agents() -> None:
    """A graph: the CFO must call the tool, in which the COO speaks; then the CFO has the last word."""
    forced, free = model("cfo", 64).bind_tools([ask_coo], tool_choice="ask_coo"), model("cfo")

    def cfo(state: MessagesState) -> dict[str, Any]:
        heard = any(isinstance(message, ToolMessage) for message in state["messages"])
        return {"messages": [(free if heard else forced).invoke(state["messages"])]}

    def next_node(state: MessagesState) -> str:
        return "tools" if state["messages"][-1].tool_calls else END

    graph = StateGraph(MessagesState)
    graph.add_node("cfo", cfo)
    graph.add_node("tools", ToolNode([ask_coo]))
    graph.add_edge(START, "cfo")
    graph.add_conditional_edges("cfo", next_node, ["tools", END])
    graph.add_edge("tools", "cfo")
    final = graph.compile().invoke({"messages": [HumanMessage("Can we hire?")]})
    assert ["human", "ai", "tool", "ai"] == [message.type for message in final["messages"]]
    assert final["messages"][-2].content
    assert final["messages"][-1].content


for step in (invoke, stream, responses, structured, two_agents):
    if not sys.argv[2:] or step.__name__ in sys.argv[2:]:
        step()
        print(step.__name__, flush=True)
