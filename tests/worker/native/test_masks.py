"""Masks on logits."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from lorapool.shared.job import BASE_REF
from lorapool.worker.engine.port import Sampling
from lorapool.worker.engine.sequence import Sequence
from lorapool.worker.grammar.compiler import GrammarRefused
from lorapool.worker.grammar.grammars import Masks
from lorapool.worker.native.masks import _added, _forbidden, forbid
from lorapool.worker.native.sampler import Sampler

INF = float("-inf")


def masks(at: list[int], allowed: list[set[int]], words: int = 2) -> Masks:
    bits = np.zeros((len(at), words), dtype=np.uint32)
    for row, ids in zip(bits, allowed, strict=True):
        for token in ids:
            row[token // 32] |= np.uint32(1 << token % 32)
    return Masks(at, bits, {})


@pytest.mark.parametrize("vocabulary", [40, 64, 100])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("at", [[0, 2], [0, 1, 2]])
def test_what_has_no_bit_is_forbidden(vocabulary: int, dtype: torch.dtype, at: list[int]) -> None:
    """Also what a model's vocabulary has beyond the tokenizer's; other rows, and what is allowed, stay to the bit."""
    logits = torch.randn(3, vocabulary).to(dtype)
    before, allowed = logits.clone(), [{0, 31, 32, 39}] * len(at)
    forbid(logits, masks(at, allowed))
    for row in range(3):
        ids = sorted(allowed[0]) if row in at else list(range(vocabulary))
        assert logits[row, ids].equal(before[row, ids])
        assert vocabulary - len(ids) == int((logits[row] == INF).sum())


def test_both_forms_of_a_mask_forbid_the_same() -> None:
    """What the CPU adds, and what other devices fill in."""
    bits = np.random.default_rng(1).integers(0, 1 << 32, size=(5, 9), dtype=np.uint32)
    held = Masks(list(range(5)), bits, {})
    assert _forbidden(held, torch.device("cpu")).equal(_added(held, torch.bfloat16) == INF)


@pytest.mark.parametrize("params", [{}, {"temperature": 1.0}, {"temperature": 1.0, "top_k": 50, "top_p": 0.9},
                                    {"repetition_penalty": 1.5, "presence_penalty": 1.0}])  # fmt: skip
def test_only_what_is_allowed_is_drawn_and_neighbours_draw_as_ever(params: dict[str, float]) -> None:
    """Few of a large vocabulary, with each way to draw; log probabilities are those of the raw logits."""
    torch.manual_seed(1)
    rows = [
        Sequence(f"s{at}", BASE_REF, [1], Sampling(9, seed=at, logprobs=True, **params), [3, 4]) for at in range(40)
    ]
    logits = torch.randn(40, 5000)
    alone = Sampler().draw(logits.clone(), rows)
    held = masks(list(range(0, 40, 2)), [{3, 7, 4999}] * 20, words=157)
    drawn = Sampler().draw(logits.clone(), rows, held)
    assert {3, 7, 4999} >= {row.token_id for row in drawn[::2]}
    assert alone[1::2] == drawn[1::2]
    table = torch.log_softmax(logits, dim=-1)
    assert [pytest.approx(float(table[at, row.token_id])) for at, row in enumerate(drawn)] == [d.logprob for d in drawn]


def test_a_seed_draws_the_same_again() -> None:
    """With a mask as without one."""
    row = Sequence("s", BASE_REF, [1], Sampling(9, seed=5, temperature=1.0))
    logits = torch.randn(1, 300)
    held = masks([0], [set(range(100, 200))], words=10)
    first = Sampler().draw(logits.clone(), [row], held)
    assert first == Sampler().draw(torch.cat([logits, logits]), [row, row], held._replace(at=[0], bits=held.bits))[:1]


def test_a_grammar_that_went_too_far_fails_its_row_alone() -> None:
    """With its own error; the other draws."""
    rows = [Sequence(f"s{at}", BASE_REF, [1], Sampling(9)) for at in range(2)]
    held = masks([0, 1], [set(), {5}])._replace(refused={0: GrammarRefused("too far")})
    drawn = Sampler().draw(torch.randn(2, 64), rows, held)
    assert isinstance(drawn[0].error, GrammarRefused)
    assert (5, None) == (drawn[1].token_id, drawn[1].error)
