"""Matchers of sequences, and the masks of a step."""

from __future__ import annotations

import time

import numpy as np
import pytest
from numpy.typing import NDArray

from lorapool.shared.job import BASE_REF, FinishReason
from lorapool.worker.engine.port import Sampling
from lorapool.worker.engine.sequence import Sequence
from lorapool.worker.grammar import grammars as module
from lorapool.worker.grammar.compiler import GrammarRefused
from lorapool.worker.grammar.grammars import Grammars, Masks
from tests.fake_vocabulary import END, vocabulary

A, B = b"ab"


@pytest.fixture(scope="module")
def grammars() -> Grammars:
    return Grammars(vocabulary())


def sequence(grammar: str | None, output: str = "", **params: object) -> Sequence:
    sampling = Sampling(**{"max_new_tokens": 9, "eos_ids": (END,), **params})
    return Sequence("s", BASE_REF, [1], sampling, list(output.encode()), grammar)


def ready(grammars: Grammars, *rows: Sequence) -> list[Sequence]:
    give_up_at = time.monotonic() + 20
    for row in rows:
        while not grammars.ready(row):
            assert time.monotonic() < give_up_at
            time.sleep(0.001)
    return list(rows)


def allowed(masks: Masks | None, index: int = 0) -> set[int]:
    assert masks is not None
    bits: NDArray[np.uint8] = masks.bits[index].view(np.uint8)
    return set(np.flatnonzero(np.unpackbits(bits, bitorder="little")).tolist())


def test_rows_without_a_grammar_cost_nothing(grammars: Grammars) -> None:
    """No mask is made where there is none to make."""
    assert grammars.ready(sequence(None))
    assert grammars.masks([sequence(None)]) is None


def test_each_row_has_the_mask_of_its_own_place(grammars: Grammars) -> None:
    """Of those with a grammar, in their order; what was written before counts, as after a preemption or in a retry."""
    rows = ready(
        grammars, sequence("start: /ab/"), sequence(None), sequence("start: /ab/", "a"), sequence("start: /a*/")
    )
    masks = grammars.masks(rows)
    assert [0, 2, 3] == masks.at
    assert A in allowed(masks, 0) and B not in allowed(masks, 0)
    assert {B} == allowed(masks, 1)
    assert END in allowed(masks, 2)


def test_no_end_before_its_time_but_where_only_an_end_fits(grammars: Grammars) -> None:
    """min_new_tokens and ignore_eos take the end away as long as something else is left."""
    [row] = ready(grammars, sequence("start: /a*/", min_new_tokens=5))
    assert END not in allowed(grammars.masks([row]))
    [row] = ready(grammars, sequence("start: /a*/", ignore_eos=True))
    assert END not in allowed(grammars.masks([row]))
    [row] = ready(grammars, sequence("start: /a{2}/", "aa", min_new_tokens=5))
    assert {END} == allowed(grammars.masks([row]))


def test_a_grammar_at_its_end_ends_its_sequence(grammars: Grammars) -> None:
    """Without an end token, also where it would be ignored, and at the last token that may be."""
    for params in ({}, {"ignore_eos": True}, {"eos_ids": ()}, {"max_new_tokens": 2}, {"min_new_tokens": 9}):
        [row] = ready(grammars, sequence("start: /a{2}/", **params))
        row.append(A)
        assert row.finish_reason is None
        row.append(A)
        assert FinishReason.EOS_TOKEN is row.finish_reason


def test_a_token_that_does_not_fit_is_told_of_that_row_alone(grammars: Grammars) -> None:
    """By its next mask; the sequence does not end as if it were whole."""
    rows = ready(grammars, sequence("start: /a{3}/"), sequence("start: /a{3}/"))
    rows[0].append(B)
    assert rows[0].finish_reason is None
    masks = grammars.masks(rows)
    assert {0} == masks.refused.keys()
    assert isinstance(masks.refused[0], GrammarRefused)


def test_what_is_none_is_refused_each_time(grammars: Grammars) -> None:
    """With the reason, from what was compiled once."""
    for _ in range(2):
        with pytest.raises(GrammarRefused, match="not served"):
            ready(grammars, sequence("start: ???"))


def test_the_longest_unused_is_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that thousands of grammars do not fill the memory; who asks again waits again."""
    monkeypatch.setattr(module, "KEPT", 2)
    grammars = Grammars(vocabulary())
    for letter in "abcab":
        ready(grammars, sequence(f"start: /{letter}/"))
    assert ["start: /a/", "start: /b/"] == list(grammars._known)
    assert len("start: /a/start: /b/") == grammars._characters
