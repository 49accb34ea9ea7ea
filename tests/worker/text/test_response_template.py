"""ResponseTemplate: calls as tokenizers say that their models write them. The three are transformers' own examples."""

from __future__ import annotations

import json
from typing import Any

import pytest

from lorapool.shared.errors import BaseModelError
from lorapool.shared.job import Job
from lorapool.worker.text.call_syntax import CallSyntax
from lorapool.worker.text.response_template import ResponseTemplate
from lorapool.worker.text.tool_use import ToolUse
from tests.worker.text.byte_tokenizer import byte_tokenizer

SHOWN = "{{ tools }}{{ messages[0].tool_calls }}{{ messages[0].content }}"
FUNCTION = {"type": "function", "function": {"name": "{name}", "arguments": "{content}"}}
QWEN_2: dict[str, Any] = {
    "start_anchor": "<|im_start|>assistant\n",
    "fields": {
        "reasoning_content": {"open": "<think>", "close": "</think>"},
        "tool_calls": {
            "open_pattern": r"\s*<tool_call>",
            "close": "</tool_call>",
            "repeats": True,
            "content": "json",
            "transform": {"type": "function", "function": "{content}"},
        },
        "content": {"content": "text"},
    },
}
QWEN_3_5: dict[str, Any] = {
    "start_anchor": "<|im_start|>assistant\n",
    "fields": {
        "tool_calls": {
            "open_pattern": r"\s*<tool_call>\s*<function=(?P<name>[^>\n]+)>",
            "close_pattern": r"</function>\s*</tool_call>",
            "repeats": True,
            "content": "xml-inline",
            "content_args": {"tag_pattern": r"<parameter=(?P<key>[^>\n]+)>\s*(?P<value>.*?)\s*</parameter>"},
            "transform": FUNCTION,
        },
        "content": {"content": "text"},
    },
}
GEMMA_4: dict[str, Any] = {
    "start_anchor": ["<|turn>model\n"],
    "fields": {
        "tool_calls": {
            "open_pattern": r"<\|tool_call>call:(?P<name>\w+)",
            "close": "<tool_call|>",
            "repeats": True,
            "content": "json",
            "content_args": {"unquoted_keys": True, "string_delims": [['<|"|>', '<|"|>']]},
            "transform": FUNCTION,
        },
        "content": {"content": "text"},
    },
}
WEATHER = {"name": "weather", "parameters": {"properties": {"city": {"type": "string"}, "days": {"type": "integer"}}}}
IN_QWEN_3_5 = (
    "<tool_call>\n<function=weather>\n<parameter=city>\nKöln\n</parameter>\n"
    "<parameter=days>\n3\n</parameter>\n</function>\n</tool_call>"
)
IN_GEMMA_4 = '<|tool_call>call:weather{city:<|"|>Köln<|"|>,days:3}<tool_call|>'


def use(response: Any, **fields: Any) -> ToolUse:
    tokenizer = byte_tokenizer(SHOWN, response=response)
    messages = [{"role": "user", "content": "?"}]
    found = tokenizer.tool_use(Job.parse(id="j", ref="_base", messages=messages, **{"tools": [WEATHER], **fields}), "j")
    assert found is not None
    return found


def read(response: Any, text: str, size: int) -> tuple[str, list[tuple[str, Any]]]:
    parser = use(response).parser
    parts = [parser.push(text[at : at + size]) for at in range(0, len(text), size)] + [parser.finish()]
    calls = [(call.name, json.loads(call.arguments)) for call in parser.calls]
    assert [call.name for call in parser.calls] == [piece.name for part in parts for piece in part.calls if piece.name]
    return "".join(part.text for part in parts), calls


EXPECTED = ("weather", {"city": "Köln", "days": 3})


@pytest.mark.parametrize("size", [1, 7, 1000])
@pytest.mark.parametrize(("response", "call"), [(QWEN_3_5, IN_QWEN_3_5), (GEMMA_4, IN_GEMMA_4)])
def test_calls_in_the_models_own_syntax(response: Any, call: str, size: int) -> None:
    """With text around them, however it is parted; arguments have the types of the schema."""
    assert ("I ask.", [EXPECTED]) == read(response, f"I ask.{call}", size)
    assert ("I ask. so ", [EXPECTED, EXPECTED]) == read(response, f"I ask.{call}{call} so ", size)


@pytest.mark.parametrize("size", [1, 1000])
@pytest.mark.parametrize(
    ("response", "text"),
    [
        (QWEN_3_5, IN_QWEN_3_5.replace("weather", "whether")),
        (QWEN_3_5, IN_QWEN_3_5[:-5]),
        (QWEN_3_5, "<tool_call>\nweather()\n</tool_call>"),
        (GEMMA_4, IN_GEMMA_4.replace("days:3", "days:")),
        (GEMMA_4, IN_GEMMA_4[:20]),
        (GEMMA_4, "<|tool_call>"),
    ],
)
def test_what_is_no_call_is_text(response: Any, text: str, size: int) -> None:
    """As it was written."""
    assert (f"I ask. {text}", []) == read(response, f"I ask. {text}", size)


def test_json_between_two_marks_is_read_as_it_comes() -> None:
    """By our own parser, and such a syntax can be held by a grammar."""
    template = ResponseTemplate.of(QWEN_2)
    assert template is not None
    assert CallSyntax() == template.syntax
    assert "<tool_call>" in str(use(QWEN_2, tool_choice={"mode": "required"}).grammar)


def test_other_marks_and_keys_become_a_syntax() -> None:
    """From literals, or patterns that stand for one text."""
    keys = {"type": "function", "function": {"name": "{content.tool}", "arguments": "{content.input}"}}
    field = {"open_pattern": r"\s*\[CALL\]", "close": ["[/CALL]"], "content": "json", "transform": keys}
    assert ResponseTemplate({"fields": {"tool_calls": field}}).syntax is None  # a list of marks
    template = ResponseTemplate({"fields": {"tool_calls": {**field, "close": "[/CALL]"}}})
    assert CallSyntax("[CALL]", "[/CALL]", name="tool", arguments="input") == template.syntax


def test_a_required_call_is_written_as_hermes_where_no_grammar_is_known() -> None:
    """And read so."""
    required = use(GEMMA_4, tool_choice={"mode": "required"})
    assert '"<tool_call>"' in str(required.grammar)
    assert "weather" == required.parser.push('<tool_call>{"name": "weather", "arguments": {}}').calls[0].name


def test_a_mark_that_may_grow_is_waited_for() -> None:
    """Blanks that belong to a closing mark are no content, one by one or all at once."""
    field = {"open_pattern": "<call>", "close_pattern": r"</call>\s*", "content": "json"}
    response = {"start_anchor": "<>", "fields": {"tool_calls": {**field, "transform": {"function": "{content}"}}}}
    text = 'a<call>{"name": "weather", "arguments": {"city": "Köln", "days": 3}}</call> \n\n b'
    assert ("ab", [EXPECTED]) == read(response, text, 1) == read(response, text, 1000)


def test_one_call_at_most() -> None:
    """Of two, the second is text, where one alone was asked for."""
    parser = use(GEMMA_4, parallel_tool_calls=False).parser
    assert IN_GEMMA_4 == parser.push(IN_GEMMA_4 * 2).text + parser.finish().text
    assert 1 == len(parser.calls)


def test_a_template_that_shows_no_tools_has_hermes_syntax() -> None:
    """The tools were written into its messages, and the model told to answer so."""
    tokenizer = byte_tokenizer("{{ messages[0].content }}", response=GEMMA_4)
    job = Job.parse(id="j", ref="_base", messages=[{"role": "user", "content": "?"}], tools=[WEATHER])
    found = tokenizer.tool_use(job, "j")
    assert found is not None
    assert "weather" == found.parser.push('<tool_call>{"name": "weather", "arguments": {}}').calls[0].name


def test_a_template_that_does_not_work_is_the_base_models_fault() -> None:
    """Found when it is loaded."""
    with pytest.raises(BaseModelError, match="response_template"):
        ResponseTemplate.of({"fields": {"tool_calls": {"open": "a", "content": "nonsense"}}})
    assert ResponseTemplate.of({"fields": {"content": {}}}) is None
