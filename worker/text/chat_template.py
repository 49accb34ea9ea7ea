"""Rendering: a chat by a chat template, in the form that the template has a place for. No torch.

Knows neither whose template it is nor how long it may take: an adapter's runs in a process of its own
(template_child.py).
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import jinja2
from jinja2 import ext, nodes
from jinja2.parser import Parser
from transformers.utils.chat_template_utils import render_jinja_template

from lorapool.shared.plain_text import encodable
from lorapool.worker.text.chat import Chat, Plain, led_by_user, written


class _Generation(ext.Extension):
    """transformers' own tag, read over."""

    tags = {"generation"}  # noqa: RUF012  as jinja2 declares it

    def parse(self, parser: Parser) -> list[nodes.Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


_READER = jinja2.Environment(extensions=[_Generation, ext.loopcontrols], autoescape=False)  # noqa: S701  reads only


def rendered(template: str, chat: Chat, tokens: Mapping[str, Any]) -> str:
    """The prompt's text, special ``tokens`` being variables. Raises whatever the template does."""
    if not (chat.tools or chat.has_calls) or _has_place(template, chat):
        return _rendered(template, chat.messages, chat.tools, tokens)
    messages = written(chat)
    try:
        return _rendered(template, messages, [], tokens)
    except jinja2.TemplateError:
        led = led_by_user(messages)
        if chat.messages[0]["role"] == "system" or led == messages:  # not for a system message of ours
            raise
        return _rendered(template, led, [], tokens)


@lru_cache(maxsize=64)
def words_of(template: str) -> frozenset[str]:
    """What of ``tools`` and ``tool_calls`` the template's program reads; comments and text are none of it."""
    tree = _READER.parse(template)
    names = {node.name for node in tree.find_all(nodes.Name)} | {node.attr for node in tree.find_all(nodes.Getattr)}
    names |= {node.value for node in tree.find_all(nodes.Const) if isinstance(node.value, str)}
    return frozenset(names & {"tools", "tool_calls"})


def _has_place(template: str, chat: Chat) -> bool:
    words = words_of(template)
    return ("tools" in words or not chat.tools) and ("tool_calls" in words or not chat.has_calls)


def _rendered(template: str, messages: list[Plain], tools: list[Plain], tokens: Mapping[str, Any]) -> str:
    [text], _ = render_jinja_template(
        [messages], tools=tools or None, chat_template=template, add_generation_prompt=True, **tokens
    )
    return encodable(str(text))
