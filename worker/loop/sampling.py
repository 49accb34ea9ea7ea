"""What a job asks for, as an engine takes it: everything that has to do with text stays here."""

from __future__ import annotations

from collections.abc import Collection

from lorapool.shared.job import SamplingParams
from lorapool.worker.engine.port import Sampling


def resolve(params: SamplingParams, seed: int, eos_ids: Collection[int]) -> Sampling:
    """``seed``: the one that enqueue fixed. ``eos_ids``: the tokens that end an answer of this base model."""
    return Sampling(
        params.max_new_tokens,
        seed,
        params.temperature,
        params.top_p,
        params.top_k,
        params.min_p,
        params.repetition_penalty,
        params.frequency_penalty,
        params.presence_penalty,
        params.min_new_tokens,
        tuple(sorted(eos_ids)),
        params.ignore_eos,
        params.logprobs,
        params.top_logprobs,
        params.logit_bias,
    )
