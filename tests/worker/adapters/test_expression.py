"""Expressions of strangers: linear in time, and what is served means what PEFT means."""

from __future__ import annotations

import re
import time

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from peft.utils.other import get_pattern_key

from lorapool.shared.errors import CheckpointError
from lorapool.worker.adapters.expression import MAX_EFFORT, Expressions

SLOW = [".?" * 40 + "Q", "(a+)+Q", "(a|a)*Q", "(x*){9}Q", "a*" * 40 + "Q", ".*" * 40 + "Q", "(.*.*)+Q", "(a?){99}Q"]


@pytest.mark.parametrize("expression", SLOW)
def test_an_expression_that_would_backtrack_for_ever_takes_no_time(expression):
    """Served, for RE2 runs it in linear time; matched within a moment against a long path."""
    begun = time.monotonic()
    assert Expressions("rank_pattern", [expression]).first("a" * 200) is None
    assert time.monotonic() - begun < 30  # backtracking, it would take years


REFUSED = [
    r"(.)\1",
    "(?=a)a",
    "(?!a)b",
    "(?<=a)b",
    "(?i)q_proj",
    "(?P<n>a)",
    "(?>a)",
    "(?#c)",
    "a*+",
    "a++",
    "a?+",
    r"a\Z",
    r"\A",
    r"\x41",
    r"\u0041",
    r"\n",
    r"\07",
    r"\pL",
    r"\Qa\E",
    r"\C",
    "a{,3}",
    "a{x}",
    "{",
    "[[:alpha:]]",
    "[a--b]",
    "[[a]",
    "é",
    "a\nb",
    "a\0",
    "\ud800",
    "x" * 513,
    "(?:a{99}){99}",
    "(",
    "a)(b",
    "*",
    "a**",
    "a{2}{3}",
    "[z-a]",
    "a{3,2}",
    "[",
    "\\",
    ".{0,999}" * 5,
]


@pytest.mark.parametrize("expression", REFUSED)
def test_what_the_two_engines_could_read_differently_is_refused_by_name(expression):
    """The field and the expression are named; nothing is quoted that no terminal or server takes."""
    with pytest.raises(CheckpointError, match=r"^alpha_pattern: ") as caught:
        Expressions("alpha_pattern", [expression])
    str(caught.value).encode()


ATOMS = ["a", "q", "_", "0", ".", r"\.", r"\d", r"\w", r"\W", r"\D", r"\s", r"\S", r"\b", r"\B", "^", "$", "[aq]",
         "[^a]", r"[\w.]", "[0-9]", "[]a]", "[^]a]", "[a-]", r"[\d-]", "-", "]", "}", ",", " ", "proj"]  # fmt: skip
REPEATS = ["*", "+", "?", "*?", "+?", "??", "{2}", "{0}", "{1,}", "{0,2}", "{1,2}?"]


def expressions() -> st.SearchStrategy[str]:
    def larger(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
        return st.one_of(
            st.tuples(inner, inner).map("".join),
            st.tuples(inner, inner).map("|".join),
            inner.map(lambda text: f"({text})"),
            inner.map(lambda text: f"(?:{text})"),
            st.tuples(inner.map(lambda text: f"(?:{text})"), st.sampled_from(REPEATS)).map("".join),
            st.tuples(st.sampled_from(ATOMS), st.sampled_from(REPEATS)).map("".join),
        )

    return st.recursive(st.sampled_from(ATOMS), larger, max_leaves=7)


PATHS = st.lists(st.text("aq_0.W-", min_size=1, max_size=5), min_size=1, max_size=4).map(".".join)


@settings(max_examples=1500, deadline=None)
@given(expressions(), PATHS)
@example("q|k", "layers.0.q")
@example("a|b)$|(c", "c")
def test_what_is_served_matches_as_in_peft(expression, path):
    """RE2 and Python's engine, put together as PEFT does, agree on every path."""
    try:
        served = Expressions("rank_pattern", [expression])
    except CheckpointError:
        return
    assert (re.match(rf"(.*\.)?({expression})$", path) is not None) == (served.first(path) is not None)


@settings(max_examples=500, deadline=None)
@given(st.text(st.characters(min_codepoint=1, max_codepoint=0x17F), max_size=12), PATHS)
def test_whatever_a_stranger_writes_is_served_alike_or_refused(expression, path):
    """No other error, and no other answer."""
    try:
        served = Expressions("rank_pattern", [expression])
    except CheckpointError:
        return
    assert (re.match(rf"(.*\.)?({expression})$", path) is not None) == (served.first(path) is not None)


def test_the_first_that_matches_counts():
    """Order is the config's, as in PEFT."""
    keys = ["k_proj", r"layers\.1\..*", "q_proj"]
    path = "model.layers.1.self_attn.q_proj"
    assert get_pattern_key(keys, path) == Expressions("rank_pattern", keys).first(path) == keys[1]


def test_many_expressions_on_many_modules_are_bounded():
    """A key for each module of a large model is well within; more is refused before any is matched."""
    keys = Expressions("rank_pattern", [f"model.layers.{n}.self_attn.q_proj" for n in range(560)])
    keys.check_effort(560)
    with pytest.raises(CheckpointError, match="rank_pattern: 560 expressions"):
        keys.check_effort(MAX_EFFORT // 560)


def test_a_path_that_is_not_plain_is_not_guessed_about():
    """What a word is beyond ASCII differs between the engines."""
    with pytest.raises(CheckpointError, match="not plain ASCII"):
        Expressions("rank_pattern", [r"\w"]).first("é")
