"""What is said of grammars and answers, by the real judge in its own process, with the real model's tokens."""

from __future__ import annotations

import re
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from llguidance import LLTokenizer

from examples.base_model import prepare
from lorapool.shared.errors import InvalidRequest
from lorapool.shared.response_format import ResponseFormat
from lorapool.worker.grammar.compiler import GrammarRefused, compiled, vocabulary
from lorapool.worker.grammar.judge import GrammarJudge
from lorapool.worker.text.grammar import grammar_of, of_regex, of_schema
from tests.structured.hostile import HOSTILE
from tests.structured.schemas import SCHEMAS

WALK = 40  # tokens


@pytest.fixture(scope="module")
def fast() -> str:
    return (prepare() / "tokenizer.json").read_text()


@pytest.fixture(scope="module")
def judge(fast: str) -> GrammarJudge:
    return GrammarJudge(lambda: {"fast": fast, "eos_ids": [0, 2]})


@pytest.fixture(scope="module")
def tokens(fast: str) -> LLTokenizer:
    return vocabulary(fast, [0, 2])


def _longest_s(tokens: LLTokenizer, grammar: str) -> float:
    """Of this thread's own time, for one mask or token of a walk."""
    matcher, rng, longest_s = compiled(tokens, grammar), np.random.default_rng(2), 0.0
    for _ in range(WALK):
        began_s = time.thread_time()
        mask = matcher.compute_bitmask()
        longest_s = max(longest_s, time.thread_time() - began_s)
        allowed = np.flatnonzero(np.unpackbits(np.frombuffer(mask, np.uint8), bitorder="little"))
        if matcher.is_error() or matcher.is_stopped() or set(allowed) <= {0, 2}:
            break
        began_s = time.thread_time()
        matcher.consume_token(int(rng.choice(allowed)))
        longest_s = max(longest_s, time.thread_time() - began_s)
    return longest_s


def test_two_hundred_schemas_are_served(judge: GrammarJudge) -> None:
    """Of every family, each as a grammar of its own."""
    assert 200 == len(SCHEMAS)
    forms = {name: ResponseFormat.of({"type": "json_schema", "schema": schema}) for name, schema in SCHEMAS.items()}
    with ThreadPoolExecutor(2) as threads:
        list(threads.map(lambda form: judge.judge(grammar_of(form)), forms.values()))


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_forms_are_refused_or_bounded(judge: GrammarJudge, tokens: LLTokenizer, name: str) -> None:
    """With a reason that fits on a line; or no step of one takes longer than 50 ms, on a machine that may be busy."""
    refusal = ""
    try:
        grammar = grammar_of(ResponseFormat.of(HOSTILE[name]))
        judge.judge(grammar)
    except InvalidRequest as error:
        refusal = str(error)
    else:
        assert _longest_s(tokens, grammar) < 0.05
    assert not refusal or 10 < len(refusal) < 600
    assert "\n" not in refusal


def test_what_ends_its_judge_is_refused_and_remembered(judge: GrammarJudge) -> None:
    """A chain of rules that no stack holds; the next grammar finds a judge, and the same one an answer at once."""
    chain = grammar_of(ResponseFormat.of(HOSTILE["a chain of rules"]))
    for _ in range(2):
        with pytest.raises(GrammarRefused, match="more time, memory or depth"):
            judge.judge(chain)
        assert judge.known(chain)
    judge.judge(of_regex("[a-z]+"))


@pytest.mark.parametrize(
    ("schema", "reason"),
    [
        ({"not": {"type": "string"}}, "the schema uses not"),
        ({"type": "object", "dependentRequired": {"a": ["b"]}}, "dependentRequired"),
        ({"type": "poem"}, "poem"),
        ({"$ref": "#/$defs/nowhere"}, "nowhere"),
        ({"type": "integer", "minimum": 3, "maximum": 2}, "."),
        ({"$ref": "#"}, "no text fits it"),
    ],
)
def test_a_schema_that_cannot_be_held_is_refused_with_the_reason(
    judge: GrammarJudge, schema: dict[str, object], reason: str
) -> None:
    """What is merely a note is not: a format that nobody knows, a title."""
    judge.judge(of_schema({"type": "string", "format": "house-style", "title": "x", "uniqueItems": True}))
    with pytest.raises(GrammarRefused, match=reason):
        judge.judge(of_schema(schema))


@pytest.mark.parametrize(
    ("schema", "answer", "wrong"),
    [
        ('{"oneOf": [{"type": "integer"}, {"minimum": 3}]}', "2", ""),
        ('{"oneOf": [{"type": "integer"}, {"minimum": 3}]}', "5", "valid under each"),
        ('{"properties": {"a": {"uniqueItems": true}}}', '{"a": [1, 1]}', r"at \$\.a: .*non-unique"),
        ('{"$ref": "http://127.0.0.1:1/x"}', "{}", "cannot be validated"),
        ('{"type": "object"}', "{", "cannot be read"),
        ("{}", "[" * 50_000, "cannot be read"),
        ('{"type": "string", "pattern": "^(a+)+$"}', '"' + "a" * 40 + '!"', ""),  # its grammar held it to this
        pytest.param(
            '{"patternProperties": {"^(a+)+$": {}}, "additionalProperties": false}',
            '{"' + "a" * 40 + '!": 1}',
            "cannot be validated: takes more time",
            marks=pytest.mark.long,
        ),
    ],
)
def test_an_answer_is_held_against_its_schema(judge: GrammarJudge, schema: str, answer: str, wrong: str) -> None:
    """To what a grammar cannot hold it to; nothing is fetched, and an expression without end ends."""
    assert re.search(wrong, found := judge.complaint(schema, answer))
    assert bool(wrong) == bool(found)
