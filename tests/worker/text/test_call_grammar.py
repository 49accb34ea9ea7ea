"""CallGrammar: what it lets through, by llguidance itself, on a tokenizer of one token a byte."""

from __future__ import annotations

import json
from typing import Any, cast

import pytest
from tokenizers import AddedToken

from lorapool.shared.job import Job
from lorapool.shared.tools import Tool
from lorapool.worker.grammar.compiler import GrammarRefused, compiled, vocabulary
from lorapool.worker.text.call_grammar import CallGrammar
from lorapool.worker.text.call_marks import CallMarks, call_marks
from lorapool.worker.text.call_syntax import HERMES, CallSyntax
from lorapool.worker.text.tool_use import ToolUse, tool_use
from tests.worker.text.byte_tokenizer import byte_fast

WEATHER = Tool(
    name="weather",
    parameters={
        "properties": {"city": {"type": "string"}, "days": {"type": "integer", "minimum": 1, "maximum": 7}},
        "required": ["city"],
    },
    strict=True,
)
NOW = Tool(name="now")
CALL = HERMES.written("weather", '{"city": "Köln", "days": 3}')
OTHER = HERMES.written("now", "{}")


def accepts(grammar: str, text: str, special: tuple[str, ...] = ()) -> bool:
    """Whether ``text`` is a whole answer by it."""
    fast = byte_fast(("</s>", *special))
    end = fast.token_to_id("</s>")
    assert end is not None
    matcher = compiled(vocabulary(fast.to_str(), [end]), grammar)
    return all(matcher.consume_token(token) for token in fast.encode(text).ids) and matcher.is_accepting()


REQUIRED = CallGrammar([WEATHER, NOW], several=True).required()
ONE = CallGrammar([WEATHER, NOW], several=False).required()
FREE = CallGrammar([WEATHER, NOW], several=True).free()
FREE_ONE = CallGrammar([WEATHER, NOW], several=False).free()


@pytest.mark.parametrize(
    ("grammar", "text", "expected"),
    [
        (REQUIRED, CALL, True),
        (REQUIRED, f"{CALL}\n{OTHER}\n{CALL}", True),
        (REQUIRED, "", False),
        (REQUIRED, f"So: {CALL}", False),
        (REQUIRED, f"{CALL} so.", False),
        (REQUIRED, CALL.replace("weather", "whether"), False),
        (REQUIRED, CALL.replace("3", "8"), False),
        (REQUIRED, CALL.replace("city", "town"), False),
        (REQUIRED, CALL.replace("3}", '3, "more": 1}'), False),
        (REQUIRED, HERMES.written("now", '{"zone": "CET"}'), False),
        (ONE, CALL, True),
        (ONE, f"{CALL}\n{OTHER}", False),
        (FREE, "Nothing to ask, 1 < 2.", True),
        (FREE, f"Let me ask.\n{CALL}\nand\n{OTHER} so", True),
        (FREE, "Let me ask.\n<tool_call>\nweather()", False),
        (FREE, f"Let me ask.\n{CALL.replace('3', '8')}", False),
        (FREE, "Let me ask.\n<tool_c", True),
        (FREE_ONE, "Nothing to ask.", True),
        (FREE_ONE, f"Let me ask.\n{CALL}", True),
        (FREE_ONE, f"Let me ask.\n{CALL}\n{OTHER}", False),
    ],
)
def test_what_is_an_answer(grammar: str, text: str, expected: bool) -> None:
    """Required: calls and nothing else; free: text, in which a call that has begun is one."""
    assert expected == accepts(grammar, text)


def test_marks_that_are_tokens_of_their_own() -> None:
    """A grammar that spelled them as text would never meet them."""
    special = (HERMES.open, HERMES.close)
    fast = byte_fast(("</s>", *special))
    grammar = CallGrammar([NOW], several=True, marks={mark: fast.token_to_id(mark) for mark in special})
    assert accepts(grammar.required(), f"{OTHER}\n{OTHER}", special)
    assert accepts(grammar.free(), f"Hm. {OTHER} so", special)
    assert not accepts(grammar.free(), f"Hm. {HERMES.open}now()", special)


@pytest.mark.parametrize("several", [False, True])
@pytest.mark.parametrize("marks", [(), (HERMES.open, HERMES.close)])
def test_free_text_has_tokens_that_look_like_tags(several: bool, marks: tuple[str, ...]) -> None:
    """As those between which some models think: they are no special tokens, but no text to a grammar either."""
    fast = byte_fast(("</s>", *marks))
    fast.add_tokens([AddedToken(text, special=False, normalized=False) for text in ("<think>", "</think>")])
    found = call_marks(fast, None)
    assert [fast.token_to_id("<think>"), fast.token_to_id("</think>")] == list(found.beside)
    matcher = compiled(
        vocabulary(fast.to_str(), [cast("int", fast.token_to_id("</s>"))]),
        CallGrammar([NOW], several=several, marks=found.ids, beside=found.beside).free(),
    )
    for text in ("<think>Hm.</think>So", f"<think>Hm.</think>\n{OTHER}", "<think>"):
        answer = matcher.deep_copy()
        assert all(answer.consume_token(token) for token in fast.encode(text).ids), text
        assert answer.is_accepting(), text
    begun = fast.encode("<think>Hm.</think><tool_call>now()").ids
    assert not all(map(matcher.consume_token, begun))


def test_a_model_with_a_syntax_of_its_own() -> None:
    """Marks and keys of a response template, characters of regular expressions among them."""
    syntax = CallSyntax("[TOOL(/*]", "[END]", "", "tool", "parameters")
    grammar = CallGrammar([NOW], several=True, syntax=syntax)
    assert accepts(grammar.required(), syntax.written("now", "{}"))
    assert accepts(grammar.free(), f"Hm. {syntax.written('now', '{}')}")


def used(**fields: Any) -> ToolUse:
    asked = {"messages": [{"role": "user", "content": "?"}], "tools": [WEATHER, NOW.model_copy(), LOOSE], **fields}
    return tool_use(Job.parse(id="j", ref="_base", **asked), "j", None, CallMarks({}, {}))


LOOSE = Tool(name="loose", parameters={"properties": {"a": {"type": "string", "contentMediaType": "text/html"}}})


@pytest.mark.parametrize(
    ("fields", "accepted", "refused"),
    [
        ({"tool_choice": {"mode": "required", "names": ["now"]}}, [OTHER], [CALL, "text"]),
        ({"tool_choice": {"mode": "required"}, "parallel_tool_calls": False}, [OTHER], [f"{OTHER}\n{OTHER}"]),
        ({"tool_choice": {"mode": "auto", "names": ["now"]}}, ["text", OTHER], [CALL]),
        ({"tools": [LOOSE], "parallel_tool_calls": False}, ["text"], ["<tool_call>{}"]),
        ({}, ["text", CALL], [CALL.replace("3", "8")]),
    ],
)
def test_what_the_choice_of_tools_asks(fields: dict[str, Any], accepted: list[str], refused: list[str]) -> None:
    """required, named and allowed ones; strict, or one call at most, with a free choice."""
    grammar = used(**fields).grammar
    assert grammar is not None
    assert [True] * len(accepted) == [accepts(grammar, text) for text in accepted]
    assert [False] * len(refused) == [accepts(grammar, text) for text in refused]


def test_a_free_choice_of_tools_that_are_not_strict_has_no_grammar() -> None:
    """The model writes what it will."""
    assert used(tools=[LOOSE]).grammar is None


@pytest.mark.parametrize(
    ("form", "answer"),
    [
        ({"kind": "json_schema", "value": '{"type": "object", "properties": {"a": {"const": 1}}}'}, '{"a": 1}'),
        ({"kind": "json_object"}, '{"a": 1}'),
        ({"kind": "regex", "value": "a+b"}, "aab"),
        ({"kind": "choice", "value": '["yes", "no"]'}, "no"),
        ({"kind": "lark", "value": 'start: "a" B\nB: /b+/'}, "abb"),
    ],
)
def test_an_answer_in_a_form_or_calls(form: dict[str, str], answer: str) -> None:
    """With a free choice the form holds an answer without calls; where calls are required there is none."""
    grammar = used(response_format=form).grammar
    assert grammar is not None
    assert accepts(grammar, answer)
    assert accepts(grammar, f"{CALL}\n{OTHER}")
    assert not accepts(grammar, f"{answer}{CALL}")
    assert not accepts(grammar, "something else")
    assert (
        used(response_format=form, tool_choice={"mode": "required"}).grammar
        == used(tool_choice={"mode": "required"}).grammar
    )


def test_what_cannot_be_held_refuses_a_strict_tool_only() -> None:
    """Else the rest of its schema is held to."""
    beyond = {"properties": {"a": {"type": "array", "uniqueItems": True}}}
    loose, strict = (Tool(name="f", parameters=beyond, strict=strict) for strict in (False, True))
    assert accepts(CallGrammar([loose], several=False).required(), HERMES.written("f", '{"a": [1]}'))
    with pytest.raises(GrammarRefused, match="uniqueItems"):
        accepts(CallGrammar([strict], several=False).required(), "")


def test_a_schema_cannot_change_how_it_is_read() -> None:
    """llguidance's own options in it are replaced."""
    given = {
        "properties": {"a": {"type": "integer"}},
        "x-guidance": {"whitespace_pattern": ".*", "item_separator": "x"},
    }
    grammar = CallGrammar([Tool(name="f", parameters=given)], several=False).required()
    assert accepts(grammar, HERMES.written("f", json.dumps({"a": 1})))
    assert not accepts(grammar, HERMES.written("f", '{ "a":1}'))
