"""Trial: a grammar is compiled and walked for some tokens, as an engine would, to see what it takes.

The walks are the same each time: one takes any token that is allowed, one the lowest, which in most vocabularies are
short and get on with a structure. Seconds are those of this thread's own computing.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from llguidance import LLMatcher, LLTokenizer
from numpy.typing import NDArray

from lorapool.worker.grammar.compiler import GrammarRefused, compiled, first_words, unforced

COMPILE_S, STEP_S = 1.0, 0.02
WALK = 24  # tokens
# Left to the validation of the whole answer, as nothing can hold a sequence to them token by token.
_VALIDATED_LATER = frozenset({"uniqueItems"})
_Choose = Callable[[NDArray[np.intp]], Any]


def tried(tokens: LLTokenizer, text: str) -> None:
    """Raises GrammarRefused with the reason."""
    began_s = time.thread_time()
    matcher = compiled(tokens, text)
    _check_s("compile", time.thread_time() - began_s, COMPILE_S)
    if not text.startswith("{"):  # of tools, only strict ones are held to all that they say
        _check_keywords(tokens, text)
    chance = random.Random(0)  # noqa: S311  a walk, no secret
    for choose in (np.min, lambda allowed: allowed[chance.randrange(len(allowed))]):
        _walk(tokens, matcher.deep_copy(), choose)


def _walk(tokens: LLTokenizer, matcher: LLMatcher, choose: _Choose) -> None:
    for _ in range(WALK):
        began_s = time.thread_time()
        mask = matcher.compute_bitmask()
        _check_s("a mask", time.thread_time() - began_s, STEP_S)
        if matcher.is_error():
            raise GrammarRefused(f"the grammar is not served: {first_words(matcher.get_error())}")
        allowed = _members(mask, tokens.eos_tokens)
        if not len(allowed):
            return
        began_s = time.thread_time()
        matcher.consume_token(int(choose(allowed)))
        _check_s("a token", time.thread_time() - began_s, STEP_S)
        if matcher.is_stopped() and not matcher.is_error():
            return


def _members(mask: bytes, but: list[int]) -> NDArray[np.intp]:
    bits = np.unpackbits(np.frombuffer(mask, dtype=np.uint8), bitorder="little")
    bits[but] = 0
    return np.flatnonzero(bits)


def _check_s(what: str, took_s: float, most_s: float) -> None:
    if took_s > most_s:
        raise GrammarRefused(
            f"the grammar takes too long: {1000 * took_s:.0f} ms for {what}, at most {1000 * most_s:.0f} are given"
        )


def _check_keywords(tokens: LLTokenizer, text: str) -> None:
    """What a schema says and llguidance leaves out: formats that it does not know are notes, keywords are not."""
    _, warnings = LLMatcher.validate_grammar_with_warnings(unforced(text), tokens)
    for warning in warnings:
        _, found, names = warning.partition("Unimplemented keys: ")
        keys = {name.strip(' "') for name in names.strip("[]").split(",")} if found else set()
        if keys - _VALIDATED_LATER:
            raise GrammarRefused(
                f"the schema uses {', '.join(sorted(keys - _VALIDATED_LATER))}, which no answer can be held to while "
                f"it is written: leave it out"
            )
