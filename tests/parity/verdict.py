"""What "equal to PEFT" means, and how often it had to be excused.

A logit is within BOUND of the oracle's, relative to the largest of its row. δ is twice that. A greedy token lies within
δ of the oracle's best at the same prefix, and so equals it wherever the gap is larger. A sampled token is the one whose
share of the oracle's distribution holds the same draw, or the draw lies within δ of that share's edge. A position at
which another token was taken within δ is excused and counted.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from lorapool.shared.job import SamplingParams
from lorapool.worker.native.sampler import uniform

BOUNDS = {torch.float32: 1e-4, torch.bfloat16: 0.25}
MEAN_BOUND = 0.03  # of the same distance, on average over a test's positions, in bfloat16
MOST_EXCUSED = 0.01  # of a test's positions, in float32; in bfloat16 they are counted only


@dataclass
class Tally:
    """Positions compared so far, of a test or of many."""

    positions: int = 0
    excused: int = 0
    worst: float = 0.0  # largest relative difference of a logit
    total: float = 0.0  # the sum of those differences
    dtype: str = "float32"

    @property
    def mean(self) -> float:
        return self.total / max(self.positions, 1)


def distance(found: Tensor, oracle: Tensor) -> float:
    """Of logits [vocab], relative to the oracle's largest."""
    return float((found.double() - oracle).abs().max() / oracle.abs().max())


def expected_token(oracle: Tensor, params: SamplingParams, draw: float) -> int:
    """The oracle's own choice: its best, or the token whose share of the warped distribution holds the draw."""
    if params.temperature == 0:
        return int(oracle.argmax())
    probs, ids = torch.sort(torch.softmax(oracle / params.temperature, -1), descending=True, stable=True)
    kept = params.top_k or len(probs)
    mass = probs[:kept].sum()
    kept = min(kept, int((probs[:kept].cumsum(0) - probs[:kept] < params.top_p * mass).sum()))
    shares = probs[:kept].cumsum(0)
    return int(ids[min(int(torch.searchsorted(shares, draw * shares[-1], right=True)), kept - 1)])


def may_differ(oracle: Tensor, token: int, params: SamplingParams, draw: float, bound: float) -> bool:
    """Whether rounding within the bound can make ``token`` of the oracle's choice."""
    delta = 2 * bound * float(oracle.abs().max())
    if params.temperature == 0:
        return float(oracle.max() - oracle[token]) <= delta
    slack = delta / params.temperature  # of a share of the distribution: d(softmax) ≤ d(logit) / T, twice over
    best, worst = (expected_token(oracle, params, min(max(draw + step, 0.0), 1.0)) for step in (-slack, slack))
    return float(oracle[worst]) - delta <= float(oracle[token]) <= float(oracle[best]) + delta


def judge(
    found: Tensor, oracle: Tensor, token: int, params: SamplingParams, seed: int, place: int, tally: Tally
) -> int:
    """Count one position; return the oracle's token. Raises AssertionError if it is not equal to PEFT."""
    dtype = found.dtype
    off = distance(found, oracle)
    draw = uniform(seed, place)
    expected = expected_token(oracle, params, draw)
    tally.positions += 1
    tally.dtype = str(dtype).removeprefix("torch.")
    tally.worst = max(tally.worst, off)
    tally.total += off
    assert off <= BOUNDS[dtype], f"token {place}: a logit is {off:.2g} off, relative to the largest"
    if token != expected:
        tally.excused += 1
        assert may_differ(oracle, token, params, draw, BOUNDS[dtype]), (
            f"token {place} is {token}, PEFT's is {expected}: logits {float(oracle[token])}, {float(oracle[expected])}"
        )
    return expected
