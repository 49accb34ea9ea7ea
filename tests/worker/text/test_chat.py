"""Tools and their calls in chat templates: those that have a place for them, and those that have none."""

from __future__ import annotations

import json
from typing import Any

import pytest

from lorapool.shared.errors import InvalidRequest
from lorapool.shared.job import Job
from lorapool.shared.prompt_format import PromptFormat
from lorapool.shared.tools import call_id
from lorapool.worker.text.chat import chat_of
from lorapool.worker.text.chat_template import rendered, words_of
from lorapool.worker.text.template_process import TemplateProcesses
from tests.worker.text.byte_tokenizer import byte_tokenizer

PLAIN = "{% for m in messages %}[{{ m['role'] }}]{{ m['content'] }}{% endfor %}"
TOOLS = (
    "{% if tools %}{% for t in tools %}<{{ t.function.name }}:{{ t.function.parameters | tojson }}>{% endfor %}"
    "{% endif %}"
    "{% for m in messages %}[{{ m.role }}{% if m.name %} {{ m.name }}{% endif %}]{{ m.content }}"
    "{% for c in m.tool_calls %}({{ c.function.name }} {{ c.function.arguments | tojson }}){% endfor %}{% endfor %}"
)
HERMES_2_PRO_LIKE = (
    "{%- if not tools is defined %}{%- set tools = none %}{%- endif %}{{ tools }}{{ messages[0].tool_calls }}"
)
SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}}
WEATHER = {"name": "weather", "description": "Of a city.", "parameters": SCHEMA}
USER = {"role": "user", "content": "Köln?"}
ASKED = {
    "role": "assistant",
    "content": "I ask.",
    "tool_calls": [{"id": "call_1", "name": "weather", "arguments": '{"city": "Köln"}'}],
}
TOLD = {"role": "tool", "tool_call_id": "call_1", "content": "rain"}


def job(*messages: dict[str, Any], **fields: Any) -> Job:
    return Job.parse(id="j", ref="_base", **{"messages": messages, "tools": [WEATHER], **fields})


def test_a_template_with_a_place_gets_tools_and_calls() -> None:
    """Tools in OpenAI's form, arguments as an object, a result under the name of its call."""
    text = rendered(TOOLS, chat_of(job(USER, ASKED, TOLD)), {})
    assert (
        f'<weather:{json.dumps(SCHEMA)}>[user]Köln?[assistant]I ask.(weather {{"city": "Köln"}})[tool weather]rain'
        == text
    )


def test_a_template_without_one_gets_them_in_messages() -> None:
    """Hermes' form: signatures in a system message, calls and results as marked text, results that follow as one."""
    text = rendered(PLAIN, chat_of(job({"role": "system", "content": "Be brief."}, USER, ASKED, TOLD, TOLD)), {})
    system, rest = text.split("[user]", 1)
    assert system.startswith("[system]Be brief.\n\n# Tools\n")
    assert f"<tools>\n{json.dumps({'type': 'function', 'function': WEATHER})}\n</tools>" in system
    assert '<tool_call>\n{"name": <function-name>, "arguments": <args-json-object>}\n</tool_call>' in system
    assert rest == (
        'Köln?[assistant]I ask.\n<tool_call>\n{"name": "weather", "arguments": {"city": "Köln"}}\n</tool_call>'
        "[user]<tool_response>\nrain\n</tool_response>\n<tool_response>\nrain\n</tool_response>"
    )


def test_a_chat_without_tools_is_left_alone() -> None:
    """Also where a template has no place for them."""
    assert "[user]Köln?" == rendered(PLAIN, chat_of(job(USER, tools=())), {})


def test_tools_that_may_not_be_called_are_not_shown() -> None:
    """tool_choice none; calls of before are, in whichever form the template has."""
    for template, expected in ((TOOLS, '(weather {"city": "Köln"})'), (PLAIN, "<tool_call>\n")):
        text = rendered(template, chat_of(job(USER, ASKED, TOLD, tool_choice={"mode": "none"})), {})
        assert expected in text
        assert "Of a city." not in text
        assert "<weather" not in text


def test_a_template_that_takes_no_system_message_gets_tools_with_the_first_question() -> None:
    """It refused the one that was made for them."""
    text = rendered(
        "{% if messages[0].role == 'system' %}{{ raise_exception('no') }}{% endif %}" + PLAIN, chat_of(job(USER)), {}
    )
    assert text.startswith("[user]# Tools\n")
    assert text.endswith("\n\nKöln?")


@pytest.mark.parametrize(
    ("template", "words"),
    [
        (TOOLS, {"tools", "tool_calls"}),
        (HERMES_2_PRO_LIKE, {"tools", "tool_calls"}),
        ("{# tools #} You have no tools. {{ messages[0]['tool_calls'] }}", {"tool_calls"}),
        (
            "{% generation %}{% for t in tools %}{% if t %}{% break %}{% endif %}{% endfor %}{% endgeneration %}",
            {"tools"},
        ),
        (PLAIN, set()),
    ],
)
def test_what_a_template_has_a_place_for_is_what_its_program_reads(template: str, words: set[str]) -> None:
    """Not what stands in its comments or its text."""
    assert words == words_of(template)


@pytest.mark.parametrize("arguments", ["", "not JSON", "[1]", "[" * 50_000, "1" * 5_000, '{"a": NaN}'])
def test_arguments_that_are_no_object_are_text(arguments: str) -> None:
    """Whatever a client sends back as a call of before, it is shown; none at all is an empty object."""
    asked = {**ASKED, "tool_calls": [{"id": "c", "name": "weather", "arguments": arguments}]}
    [call] = chat_of(job(USER, asked)).messages[1]["tool_calls"]
    given = call["function"]["arguments"]
    assert given in ({}, arguments) or isinstance(given, dict)
    assert "weather" in rendered(PLAIN, chat_of(job(USER, asked)), {})


def test_an_adapters_own_template_gets_tools_in_its_process() -> None:
    """In the form that it has a place for; and a lone surrogate in arguments ends nobody."""
    processes = TemplateProcesses(processes=1)
    broken = {**ASKED, "tool_calls": [{"id": "c", "name": "weather", "arguments": '{"city": "\\ud800"}'}]}
    chat = chat_of(job(USER, broken, TOLD))
    assert processes.render(TOOLS, chat.messages, {}, chat.tools).startswith("<weather:{")
    assert "# Tools" in processes.render(PLAIN, chat.messages, {}, chat.tools)


@pytest.mark.parametrize("form", [PromptFormat(kind="raw"), PromptFormat(kind="custom", prefix="Q: ", suffix="\nA: ")])
def test_formats_that_are_no_templates_get_them_in_messages(form: PromptFormat) -> None:
    """raw and custom, as a template without a place."""
    tokenizer = byte_tokenizer(PLAIN)
    text = tokenizer.decode(tokenizer.encode(job(USER, ASKED, TOLD), form))
    assert '<tool_call>\n{"name": "weather"' in text
    assert "<tool_response>\nrain" in text
    assert "<tools>" in text


def test_of_templates_by_name_the_one_for_tools_is_theirs() -> None:
    """As transformers chooses; without tools the default one."""
    tokenizer = byte_tokenizer({"default": PLAIN, "tool_use": TOOLS})
    assert tokenizer.decode(tokenizer.encode(job(USER))).startswith("<weather:")
    assert "[user]Köln?" == tokenizer.decode(tokenizer.encode(job(USER, tools=())))


def test_marks_that_are_special_tokens_are_text_of_an_answer_with_tools() -> None:
    """Else they would be left out, and no call be found."""
    tokenizer = byte_tokenizer(PLAIN, special=("<tool_call>", "</tool_call>"))
    ids = tokenizer.encode(Job(id="j", ref="_base", prompt="ö<tool_call>{}</tool_call>"))
    with_tools, without = tokenizer.detokenizer(tools=True), tokenizer.detokenizer()
    assert "ö<tool_call>{}</tool_call>" == "".join(map(with_tools.push, ids))
    assert "ö{}" == "".join(map(without.push, ids))


def test_a_job_that_may_call_nothing_has_no_parser() -> None:
    """Its text is left as it is."""
    tokenizer = byte_tokenizer(PLAIN)
    assert tokenizer.tool_use(job(USER, tools=()), "j") is None
    assert tokenizer.tool_use(job(USER, tool_choice={"mode": "none"}), "j") is None
    use = tokenizer.tool_use(job(USER), "j")
    assert use is not None
    assert use.grammar is None
    assert call_id("j", 0) == use.parser.push('<tool_call>{"name": "weather"}').calls[0].id


def test_a_template_that_fails_says_so() -> None:
    """With the words of the template."""
    with pytest.raises(InvalidRequest, match="never"):
        byte_tokenizer("{{ raise_exception('never') }}").encode(job(USER))
