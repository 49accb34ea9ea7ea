"""What a model may write where it can call tools, and what a client sends back as a chat with calls."""

from __future__ import annotations

import json
from random import Random
from typing import Any

from lorapool.shared.job import Job
from lorapool.worker.text.call_syntax import HERMES
from lorapool.worker.text.chat import chat_of, written
from lorapool.worker.text.chat_template import rendered
from lorapool.worker.text.tool_calls import Tally, ToolCalls
from tests.fuzz import mutation
from tests.fuzz.target import Target

NAMES = ("weather", "now")
CALL = HERMES.written("weather", '{"city": "Köln", "days": [1, {"a": null}]}')
PIECES = (
    CALL, HERMES.written("now", "{}"), HERMES.written("unknown", "{}"), CALL[:30], CALL[30:], HERMES.open, HERMES.close,
    '{"name": "now", "arguments": ', "{", "}", '"', "\\", "[" * 500, '{"a":' * 200, "1" * 100, "\n" * 50,
)  # fmt: skip
TEMPLATE = "{{ tools | tojson }}{% for m in messages %}{{ m.content }}{% for c in m.tool_calls %}{{ c | tojson }}"
TEMPLATE += "{% endfor %}{% endfor %}"
CHAT = {
    "id": "j",
    "ref": "_base",
    "messages": [
        {"role": "user", "content": "Rain?"},
        {"role": "assistant", "content": "", "tool_calls": [{"id": "c", "name": "now", "arguments": '{"a": 1}'}]},
        {"role": "tool", "content": "dry", "tool_call_id": "c", "name": "now"},
    ],
    "tools": [{"name": "now", "description": "d", "parameters": {"properties": {"a": {"type": "integer"}}}}],
}


def draw_answer(random: Random) -> tuple[str, int]:
    pieces = (random.choice((*PIECES, mutation.text(random)[:300])) for _ in range(random.randint(1, 8)))
    return "".join(pieces), random.randint(1, 20)


def check_answer(case: tuple[str, int]) -> None:
    """However it is parted: the same content and calls, whose arguments are objects; without a call it is content."""
    text, size = case
    whole, parted = read(text, len(text) or 1), read(text, size)
    assert whole == parted
    content, calls = whole
    for call in calls:
        assert call.name in NAMES
        assert isinstance(json.loads(call.arguments), dict)
    assert calls or content == text


def read(text: str, size: int) -> tuple[str, Any]:
    parser = ToolCalls(NAMES, Tally("j"), held=False)
    content = "".join(parser.push(text[at : at + size]).text for at in range(0, len(text), size))
    return content + parser.finish().text, parser.calls


def check_chat(fields: Any) -> None:
    """A chat is refused by its fields' names, or written by a template, and without one."""
    chat = chat_of(Job.parse(**fields if isinstance(fields, dict) else {"id": fields}))
    assert isinstance(rendered(TEMPLATE, chat, {}), str)
    assert all(message.keys() == {"role", "content"} for message in written(chat))


TARGETS = (
    Target("tool_calls", draw_answer, check_answer),
    Target("tool_chat", mutation.one_of(CHAT), check_chat, limit_s=5.0),
)
