"""The sampling oracle: transformers' own processors, in the order of its ``generate``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from transformers.generation import logits_process as hf

from lorapool.shared.job import SamplingParams

EDGE = 1e-5  # of cumulative probability: nearer than that, float32 sums may fall on either side


def warped(
    logits: torch.Tensor, prompt: Sequence[int], output: Sequence[int], params: SamplingParams, eos: Sequence[int]
) -> torch.Tensor:
    """[vocab] scores of the next token, before softmax; greedy params stop before temperature."""
    ids = torch.tensor([[*prompt, *output]])
    scores = logits[None].float()
    for step in _steps(prompt, output, params, eos):
        scores = step(ids, scores)
    return scores[0]


def interval(scores: torch.Tensor, token: int) -> tuple[float, float]:
    """Which draws in [0, 1) choose ``token``: its piece of the cumulative distribution, likeliest first."""
    probs, ids = torch.sort(scores.double().softmax(-1), descending=True, stable=True)
    place = int((ids == token).nonzero())
    end = float(torch.cumsum(probs, 0)[place])
    return end - float(probs[place]), end


def _steps(prompt: Sequence[int], output: Sequence[int], params: SamplingParams, eos: Sequence[int]) -> list[Any]:
    steps: list[Any] = []
    if params.logit_bias:
        steps.append(hf.SequenceBiasLogitsProcessor({(token,): float(value) for token, value in params.logit_bias}))
    steps += [
        hf.RepetitionPenaltyLogitsProcessor(params.repetition_penalty),
        lambda _, scores: _counted(scores, output, params),
    ]
    if params.min_new_tokens:
        steps.append(hf.MinNewTokensLengthLogitsProcessor(len(prompt), params.min_new_tokens, list(eos), device="cpu"))
    return steps + (_warpers(params) if params.temperature else [])


def _warpers(params: SamplingParams) -> list[Any]:
    steps: list[Any] = [hf.TemperatureLogitsWarper(params.temperature)]
    if params.top_k:
        steps.append(hf.TopKLogitsWarper(params.top_k))
    if params.top_p < 1:
        steps.append(hf.TopPLogitsWarper(params.top_p))
    if params.min_p:
        steps.append(hf.MinPLogitsWarper(params.min_p))
    return steps


def _counted(scores: torch.Tensor, output: Sequence[int], params: SamplingParams) -> torch.Tensor:
    """OpenAI's frequency and presence penalties, token by token: transformers has no class for them."""
    scores = scores.clone()
    for token in set(output):
        scores[0, token] -= params.frequency_penalty * output.count(token) + params.presence_penalty
    return scores
