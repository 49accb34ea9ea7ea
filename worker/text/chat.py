"""Chat: messages and tools as chat templates are given them, and the same for a template that has no place for tools.

There the tools stand in a system message, calls and what came of them in the text of messages, in the form that many
models were trained on (Hermes). Knows no template.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any, NamedTuple

from lorapool.shared.job import Job, Message
from lorapool.shared.tools import Tool, ToolCall
from lorapool.worker.text.call_syntax import HERMES

Plain = dict[str, Any]

_INSTRUCTIONS = """# Tools

You may call one or more functions to assist with the user query.

You are provided with function signatures within <tools></tools> XML tags:
<tools>
{tools}
</tools>

For each function call, return a json object with function name and arguments within {open}{close} XML tags:
{example}"""


class Chat(NamedTuple):
    """``messages`` and ``tools`` in the form of OpenAI's API, a call's arguments as an object."""

    messages: list[Plain]
    tools: list[Plain]

    @property
    def has_calls(self) -> bool:
        """Of tools, among the messages."""
        return any("tool_calls" in message or message["role"] == "tool" for message in self.messages)


def chat_of(job: Job) -> Chat:
    """Of a job with messages. Tools that it may not call are not shown."""
    messages, names = [], dict[str, str]()
    for message in job.messages or ():
        names |= {call.id: call.name for call in message.tool_calls}
        messages.append(_plain(message, names))
    return Chat(messages, [] if job.tool_choice.mode == "none" else [_signature(tool) for tool in job.tools])


def written(chat: Chat) -> list[Plain]:
    """All of it as messages of text, roles being system, user and assistant."""
    messages: list[Plain] = []
    for message in chat.messages:
        if message["role"] != "tool":
            messages.append({"role": message["role"], "content": _with_calls(message)})
            continue
        response = f"<tool_response>\n{message['content']}\n</tool_response>"
        if messages and messages[-1].get("tool"):
            messages[-1]["content"] += f"\n{response}"
        else:
            messages.append({"role": "user", "content": response, "tool": True})
    messages = [{"role": message["role"], "content": message["content"]} for message in messages]
    return _instructed(messages, chat.tools) if chat.tools else messages


def led_by_user(messages: Iterable[Plain]) -> list[Plain]:
    """The system message before the first user's text, for a template that takes none."""
    system, *rest = messages
    if system["role"] != "system" or not rest or rest[0]["role"] != "user":
        return [system, *rest]
    return [{"role": "user", "content": f"{system['content']}\n\n{rest[0]['content']}"}, *rest[1:]]


def _instructed(messages: list[Plain], tools: list[Plain]) -> list[Plain]:
    signatures = "\n".join(json.dumps(tool, ensure_ascii=False) for tool in tools)
    example = HERMES.written("FUNCTION", "ARGUMENTS").replace('"FUNCTION"', "<function-name>")
    text = _INSTRUCTIONS.format(
        tools=signatures,
        open=HERMES.open,
        close=HERMES.close,
        example=example.replace("ARGUMENTS", "<args-json-object>"),
    )
    if messages and messages[0]["role"] == "system":
        return [{"role": "system", "content": f"{messages[0]['content']}\n\n{text}"}, *messages[1:]]
    return [{"role": "system", "content": text}, *messages]


def _with_calls(message: Plain) -> str:
    calls = (call["function"] for call in message.get("tool_calls", ()))
    texts = [HERMES.written(call["name"], _json(call["arguments"])) for call in calls]
    return "\n".join([message["content"], *texts] if message["content"] or not texts else texts)


def _json(arguments: Plain | str) -> str:
    return arguments if isinstance(arguments, str) else json.dumps(arguments, ensure_ascii=False)


def _plain(message: Message, names: dict[str, str]) -> Plain:
    """``names``: of the calls so far, by id, since templates ask for a result's."""
    plain = message.model_dump(exclude_defaults=True)
    if message.tool_calls:
        plain["tool_calls"] = [_call(call) for call in message.tool_calls]
    if message.tool_call_id is not None and message.name is None and (name := names.get(message.tool_call_id)):
        plain["name"] = name
    return plain


def _call(call: ToolCall) -> Plain:
    function = {"name": call.name, "arguments": _arguments(call.arguments)}
    return {"id": call.id, "type": "function", "function": function}


def _arguments(text: str) -> Plain | str:
    """An object where it is one, as templates expect."""
    try:
        arguments = json.loads(text or "{}")
        return arguments if isinstance(arguments, dict) else text
    except (ValueError, RecursionError):
        return text


def _signature(tool: Tool) -> Plain:
    parameters = tool.parameters or {"type": "object", "properties": {}}
    function = {"name": tool.name, "description": tool.description, "parameters": parameters}
    return {"type": "function", "function": function}
