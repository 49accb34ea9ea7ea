"""ToolCalls: content and calls in a text that comes in pieces of any size."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lorapool.worker.text.call_syntax import HERMES, CallSyntax
from lorapool.worker.text.tool_calls import MAX_CALLS, Parsed, Tally, ToolCalls

NAMES = ("weather", "now")
Read = tuple[str, list[tuple[str, str]]]


def read(text: str, size: int = 1, *, held: bool = False, syntax: CallSyntax = HERMES) -> Read:
    """Content and calls. What was told in pieces is what is there at the end."""
    parser = ToolCalls(NAMES, Tally("job"), syntax, held=held)
    parts = [parser.push(text[at : at + size]) for at in range(0, len(text), size)] + [parser.finish()]
    told = together(parts)
    assert told == [(call.id, call.name, call.arguments) for call in parser.calls]
    return "".join(part.text for part in parts), [(call.name, call.arguments) for call in parser.calls]


def together(parts: list[Parsed]) -> list[tuple[str, str, str]]:
    """As a client puts pieces of calls together."""
    calls: list[list[str]] = []
    for piece in (piece for part in parts for piece in part.calls):
        if piece.index == len(calls):
            calls.append([piece.id, piece.name, ""])
        assert (piece.id == "") == (piece.arguments != "")
        calls[piece.index][2] += piece.arguments
    return [(call[0], call[1], call[2]) for call in calls]


def call(name: str = "weather", arguments: Any = None) -> str:
    return HERMES.written(name, json.dumps({} if arguments is None else arguments, ensure_ascii=False))


values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**20), 10**20)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
arguments = st.dictionaries(
    st.text(max_size=5) | st.sampled_from(["<tool_call>", "}", "arguments", '"']), values, max_size=4
)
pieces = st.one_of(
    st.builds(call, st.sampled_from([*NAMES, "unknown"]), arguments),
    st.text(max_size=8),
    st.sampled_from(
        ["\n", " ", "<tool_call>", "</tool_call>", "<tool_", "{", '{"name": "now"', '"', "\\", "}}", "é😀"]
    ),
)


@given(st.lists(pieces, max_size=6).map("".join), st.integers(1, 9), st.booleans())
def test_it_does_not_matter_how_text_is_parted(text: str, size: int, held: bool) -> None:
    """Character by character, some at a time, or all at once: the same content and the same calls."""
    assert read(text, 1, held=held) == read(text, size, held=held) == read(text, 10_000, held=held)


@given(st.lists(st.tuples(st.sampled_from(NAMES), arguments), max_size=4), st.booleans())
def test_calls_are_read_as_they_were_written(calls: list[tuple[str, Any]], held: bool) -> None:
    """Whatever is in their arguments: marks, brackets and quotes in texts, unicode, depth."""
    text = "So:\n" + "\n".join(call(*each) for each in calls)
    content, found = read(text, held=held)
    assert [(name, given) for name, given in calls] == [(name, json.loads(told)) for name, told in found]
    assert content.strip() == "So:"


@given(st.lists(pieces, max_size=6).map("".join))
def test_what_is_no_call_is_content_as_it_was_written(text: str) -> None:
    """With no tool of such a name, nothing is lost."""
    parser = ToolCalls((), Tally("job"), held=False)
    assert text == parser.push(text).text + parser.finish().text
    assert parser.calls == ()


@pytest.mark.parametrize(
    "text",
    [
        '<tool_call>\n{"name": "weather", "arguments": {"city": }}\n</tool_call>',
        "<tool_call>\n{'name': 'weather', 'arguments': {}}\n</tool_call>",
        '<tool_call>\n{"name": "weather", "arguments": {"city": "Köln"',
        '<tool_call>\n{"name": "weather", "arguments": ["Köln"]}\n</tool_call>',
        '<tool_call>\n{"name": "weather", "arguments": {"a": 01}}\n</tool_call>',
        '<tool_call>\n{"name": "weather", "arguments": {"a": "\n"}}\n</tool_call>',
        '<tool_call>\n{"name": "weather", "arguments": {"a": "\\x"}}\n</tool_call>',
        '<tool_call>\n{"name": "weather", "arguments": {"a": "\\u12G4"}}\n</tool_call>',
        '<tool_call>\n{"name": "weather", "arguments": ' + '{"a": ' * 200 + "1" + "}" * 201 + "\n</tool_call>",
        '<tool_call>\n{"name": "weather", "name": "now", "arguments": {}}\n</tool_call>',
        '<tool_call>\n{"name": 7, "arguments": {}}\n</tool_call>',
        '<tool_call>\n{"arguments": {}}\n</tool_call>',
        '<tool_call>\n["weather", {}]\n</tool_call>',
        "<tool_call>\nweather()\n</tool_call>",
        "<tool_call>",
        "<tool_call",
        "Call it with <tool_call> and so on.",
        '<tool_call>\n{"name": "weather", "arguments": ' + '{"a": ' * 200,
        f'<tool_call>\n{{"name": "weather", "{"k" * 300}": 1}}\n</tool_call>',
        f'<tool_call>\n{{"name": "weather", "arguments": {{"a": {"1" * 100}}}}}\n</tool_call>',
        '{"name": "weather", "arguments": {}}',
        call("unknown", {"city": "Köln"}),
    ],
)
def test_a_malformed_call_is_text(text: str) -> None:
    """All of it, and what comes after it is read as ever."""
    assert (text, []) == read(text)
    assert (f"{text} …", [("now", "{}")]) == read(f"{text} …\n{call('now')}")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('<tool_call>{"name":"now"}</tool_call>', ("", [("now", "{}")])),
        ('<tool_call>{"name":"now","arguments":null}</tool_call>', ("", [("now", "{}")])),
        ('<tool_call> {"arguments":{"a":1} , "id":"x","name":"now"} </tool_call>\n', ("", [("now", '{"a":1}')])),
        ('<tool_call>{"name":"now","arguments":"{\\"a\\":1}"}</tool_call>', ("", [("now", '{"a":1}')])),
        ('<tool_call>{"name":"now","arguments":{}}', ("", [("now", "{}")])),
        ('<tool_call>{"name":"now","arguments":{}}</tool_c', ("", [("now", "{}")])),
        ('<tool_call>{"name":"now","arguments":{}} so', ("so", [("now", "{}")])),
        (f"Hm. \n{call()}\n{call('now')}\n bye \n", ("Hm.\n bye \n", [("weather", "{}"), ("now", "{}")])),
    ],
)
def test_what_models_write_beside_the_form_is_understood(text: str, expected: Read) -> None:
    """Keys in another order, no arguments, arguments as a text, an end without the mark."""
    assert expected == read(text)


def test_a_held_calls_arguments_come_as_they_are_written() -> None:
    """First id and name, then piece by piece; where it is not held by a grammar, once it is whole."""
    head, rest = '<tool_call>\n{"name": "weather", "arguments": {"city": "Kö', 'ln"}}\n</tool_call>'
    held, free = (ToolCalls(NAMES, Tally("job"), held=held) for held in (True, False))
    first, second = held.push(head).calls
    assert ("weather", "", "", '{"city": "Kö') == (first.name, first.arguments, second.name, second.arguments)
    assert ['ln"}'] == [piece.arguments for piece in held.push(rest).calls]
    assert () == free.push(head).calls
    assert ["", '{"city": "Köln"}'] == [piece.arguments for piece in free.push(rest).calls]


def test_a_held_call_that_is_cut_stands_as_far_as_it_went() -> None:
    """As OpenAI's API has it where the tokens are used up; before its arguments began it is text."""
    text = call("weather", {"city": "Köln"})
    cut = text.index("ln")
    assert ("", [("weather", '{"city": "Kö')]) == read(text[:cut], held=True)
    assert (text[:20], []) == read(text[:20], held=True)


def test_calls_without_end_are_text_at_last() -> None:
    """An answer has so many; the rest is content."""
    content, calls = read(call("now") * (MAX_CALLS + 2))
    assert MAX_CALLS == len(calls)
    assert call("now") * 2 == content


def test_other_marks_and_keys() -> None:
    """As a response template may name them."""
    syntax = CallSyntax("[CALL]", "[/CALL]", "", "tool", "parameters")
    assert ("a", [("now", '{"b": 1}')]) == read(f"a {syntax.written('now', json.dumps({'b': 1}))}", syntax=syntax)


def test_long_arguments_take_time_in_proportion() -> None:
    """A hundred thousand pieces are read in a moment, each character once."""
    text = call("weather", {"a": ["x" * 40_000, *range(5_000)]})
    assert [("weather", json.loads(json.dumps({"a": ["x" * 40_000, *range(5_000)]})))] == [
        (name, json.loads(told)) for name, told in read(text, 1)[1]
    ]
    assert ("[" * 20_000, []) == read("[" * 20_000)
