"""Sampler: every param against the transformers processor of that name, and draws that nothing but the seed moves."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lorapool.shared.job import SamplingParams
from lorapool.worker.native.sampler import Sampler, argmax, counted, uniform
from tests.transformers_sampling import EDGE, interval, warped
from tests.worker.tiny import sequence

EOS = 3


def _drawn(logits: torch.Tensor, prompt: list[int], output: list[int], seed: int = 0, **params: Any) -> Any:
    row = sequence("a", prompt, seed=seed, eos_ids=(EOS,), **params)
    row.output_ids = list(output)
    return Sampler().draw(logits[None], [row])[0]


PARAMS = st.fixed_dictionaries(
    {
        "temperature": st.sampled_from([0.3, 1.0, 1.7]),
        "top_p": st.sampled_from([1.0, 0.9, 0.5, 0.01]),
        "top_k": st.sampled_from([0, 1, 5, 60, 64, 100, 500]),
        "min_p": st.sampled_from([0.0, 0.05, 0.5]),
        "repetition_penalty": st.sampled_from([1.0, 1.3, 0.8]),
        "frequency_penalty": st.sampled_from([0.0, 0.7]),
        "presence_penalty": st.sampled_from([0.0, -0.5]),
        "min_new_tokens": st.sampled_from([0, 9]),
        "logit_bias": st.dictionaries(st.integers(0, 19), st.floats(-100, 100, width=32), max_size=4),
    }
)


@settings(max_examples=300, deadline=None)
@given(PARAMS, st.integers(0, 1 << 30), st.sampled_from([20, 400]), st.sampled_from([0.5, 3.0]))
def test_the_draw_inverts_the_distribution_transformers_makes(
    params: dict[str, Any], seed: int, vocabulary: int, spread: float
) -> None:
    """For any params the drawn token is where the seed's number falls in transformers' sorted distribution."""
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(vocabulary, generator=generator) * spread
    prompt = torch.randint(vocabulary, (5,), generator=generator).tolist()
    output = torch.randint(vocabulary, (6,), generator=generator).tolist()
    scores = warped(logits, prompt, output, SamplingParams(**params), [EOS])
    params["logit_bias"] = tuple(params["logit_bias"].items())
    token = _drawn(logits, prompt, output, seed, **params).token_id
    low, high = interval(scores, token)
    assert scores[token] > float("-inf")
    assert low - EDGE <= uniform(seed, len(output)) <= high + EDGE


@settings(max_examples=100, deadline=None)
@given(st.integers(1, 1100), st.integers(0, 1 << 30), st.sampled_from([torch.bfloat16, torch.float32]), st.booleans())
def test_the_greedy_token_is_the_lowest_id_of_the_highest_score(
    size: int, seed: int, dtype: torch.dtype, spoilt: bool
) -> None:
    """For any vocabulary, with ties everywhere: what torch's argmax says of the scores in float32; NaN is highest."""
    generator = torch.Generator().manual_seed(seed)
    scores = torch.randint(-3, 3, (5, size), generator=generator).to(dtype)
    scores[0] = float("-inf")
    scores[1, int(torch.randint(size, (1,), generator=generator))] = float("nan") if spoilt else 9.0
    assert scores.float().argmax(dim=-1).tolist() == argmax(scores).tolist()


def test_many_seeds_follow_the_distribution() -> None:
    """Over 4,000 seeds each token comes as often as its probability says, within five standard errors."""
    logits = torch.tensor([2.0, 1.0, 0.0, -9.0, 0.5])
    rows = [sequence(str(seed), [1], seed=seed, temperature=1.0) for seed in range(4000)]
    drawn = Sampler().draw(logits.repeat(4000, 1), rows)
    share = torch.bincount(torch.tensor([row.token_id for row in drawn]), minlength=5) / 4000
    assert torch.allclose(torch.softmax(logits, -1), share, atol=5 * (0.25 / 4000) ** 0.5)


def test_batch_mates_do_not_move_a_draw() -> None:
    """A row draws the same alone, in company, and at another place of the batch."""
    torch.manual_seed(1)
    logits = torch.randn(8, 300)
    rows = [sequence(str(i), [i], seed=i, temperature=1.0, top_p=0.9, logprobs=i % 2 == 0) for i in range(8)]
    sampler = Sampler()
    together = sampler.draw(logits, rows)
    order = [5, 2, 7, 0, 1, 3, 6, 4]
    assert [together[i] for i in order] == sampler.draw(logits[order], [rows[i] for i in order])
    assert [sampler.draw(logits[i : i + 1], [rows[i]])[0] for i in range(8)] == together


def test_greedy_takes_the_lowest_id_among_equals() -> None:
    """Ties in the float32 logits go to the lowest id, in bf16 logits too."""
    logits = torch.zeros(50, dtype=torch.bfloat16)
    logits[[7, 20, 41]] = 2.0
    assert _drawn(logits, [1], []).token_id == 7


@pytest.mark.parametrize("params", [{"temperature": 0.0}, {"temperature": 1.0, "top_k": 3, "frequency_penalty": 1.0}])
def test_logprobs_are_of_the_raw_logits(params: dict[str, Any]) -> None:
    """The logprob is the log softmax before temperature, cuts and penalties."""
    torch.manual_seed(0)
    logits = torch.randn(40)
    drawn = _drawn(logits, [1], [2, 2], logprobs=True, **params)
    assert drawn.logprob == pytest.approx(float(torch.log_softmax(logits, -1)[drawn.token_id]), abs=1e-6)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_alternatives_are_the_most_probable_by_the_raw_logits(dtype: torch.dtype) -> None:
    """As many as each row asked for, best first, the lowest id first among equals; whatever bias and penalties do."""
    logits = (torch.randn(4, 300, generator=torch.Generator().manual_seed(3)) * 2).round(decimals=1).to(dtype)
    rows = [
        sequence("three", [1], logprobs=True, top_logprobs=3, logit_bias=((4, 90.0),)),
        sequence("none", [1], logprobs=True),
        sequence("twenty", [1], logprobs=True, top_logprobs=20, temperature=1.0, seed=4),
        sequence("not asked", [1]),
    ]
    drawn = Sampler().draw(logits.clone(), rows)
    table = torch.log_softmax(logits.float(), -1)
    for at, count in enumerate([3, 0, 20, 0]):
        order = sorted(range(300), key=lambda token: (-float(table[at, token]), token))[:count]
        assert order == [token for token, _ in drawn[at].top]
        assert [float(table[at, token]) for token in order] == pytest.approx([p for _, p in drawn[at].top], abs=1e-6)
    assert [True, True, True, False] == [row.logprob is not None for row in drawn]
    assert drawn[0].logprob == pytest.approx(float(table[0, 4]), abs=1e-6)


def test_there_are_no_more_alternatives_than_tokens() -> None:
    """Nor any that cannot be drawn."""
    logits = torch.tensor([1.0, float("-inf"), 2.0])
    drawn = _drawn(logits, [1], [], logprobs=True, top_logprobs=20)
    assert [2, 0] == [token for token, _ in drawn.top]


def test_a_bias_moves_the_greedy_token_alone() -> None:
    """Added before the repetition penalty; a row beside it is as it was."""
    logits = torch.tensor([[1.0, 3.0, 2.0], [1.0, 3.0, 2.0]], dtype=torch.bfloat16)
    rows = [sequence("biased", [1], logit_bias=((0, 2.5), (1, -100.0))), sequence("plain", [1])]
    assert [0, 1] == [row.token_id for row in Sampler().draw(logits, rows)]
    assert _drawn(torch.tensor([1.0, 3.0]), [0], [], logit_bias=((0, 4.0),), repetition_penalty=2.0).token_id == 1


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_logits_that_are_not_numbers_are_that_rows_error(bad: float, temperature: float) -> None:
    """A row of NaN or infinity fails; the row beside it is drawn."""
    logits = torch.randn(2, 10)
    logits[0, 4] = bad
    rows = [sequence(name, [1], temperature=temperature) for name in "ab"]
    drawn = Sampler().draw(logits, rows)
    assert isinstance(drawn[0].error, FloatingPointError)
    assert drawn[1].error is None


def test_the_end_token_is_banned_until_min_new_tokens() -> None:
    """Even where it is the best token."""
    logits = torch.zeros(10)
    logits[EOS] = 9.0
    assert _drawn(logits, [1], [2], min_new_tokens=2).token_id != EOS
    assert _drawn(logits, [1], [2, 2], min_new_tokens=2).token_id == EOS


def test_counted_penalties_are_exact() -> None:
    """frequency · count + presence, once a distinct token."""
    scores = torch.zeros(5)
    counted(scores, [1, 1, 3], 0.5, 0.25)
    assert scores.tolist() == [0.0, -1.25, 0.0, -0.75, 0.0]


def test_the_uniform_number_is_fixed_for_ever() -> None:
    """The same seed and position give the same number in every version: retries on another worker depend on it."""
    assert uniform(0, 0) == pytest.approx(0.0564664, abs=1e-7)
    assert len({uniform(seed, position) for seed in range(20) for position in range(20)}) == 400
