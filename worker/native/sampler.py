"""Logits to tokens, every row with its own params.

Names, meanings and order are those of transformers' logits processors: bias, penalties, the end-token ban, temperature,
top_k, top_p, min_p. The draw is a hash of (seed, position) inverted over the distribution sorted by falling probability
(lowest id first among equals): batch mates, retries and preemption cannot move it. Keeps no state between steps.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Sequence as Rows

import torch
from torch import Tensor

from lorapool.worker.engine.port import Alternatives, Sampling
from lorapool.worker.engine.sequence import Drawn, Sequence
from lorapool.worker.grammar.grammars import Masks
from lorapool.worker.native.logprobs import Logprobs
from lorapool.worker.native.masks import forbid

_BLOCK = 256  # ids whose highest score is found at once
_PREFIX = 64  # candidates looked at first; sixteen times as many where they do not decide, and again


def uniform(seed: int, position: int) -> float:
    """A number in [0, 1) that depends on nothing but the sequence's seed and the new token's index."""
    digest = hashlib.blake2b(struct.pack("<QQ", seed, position), digest_size=8).digest()
    return (int.from_bytes(digest, "little") >> 11) * 2.0**-53


class Sampler:
    """Draws one token a row."""

    def draw(self, logits: Tensor, rows: Rows[Sequence], masks: Masks | None = None) -> list[Drawn]:
        """``logits`` [rows, vocab] as the model gave them. A row whose logits are not all numbers gets an error, one
        whose grammar gave no mask that one's. What ``masks`` forbid stays forbidden in ``logits``."""
        raw = Logprobs(logits, rows)
        if masks is not None:
            forbid(logits, masks)
        banned = _banned(rows)
        ends = logits[banned]  # put back below: a copy of all logits would cost as much as the rest
        logits[banned] = float("-inf")
        ids = argmax(logits)
        best = logits.gather(1, ids[:, None])[:, 0]
        chosen, finite = ids.tolist(), best.isfinite().tolist()
        for at, row in enumerate(rows):
            if finite[at] and (_changed(row) or row.params.temperature > 0):
                chosen[at], finite[at] = _choose(logits[at].to(torch.float32, copy=True), row)
        logits[banned] = ends
        told = raw.told(chosen)
        drawn = [_drawn(row, chosen[at], finite[at], told.get(at)) for at, row in enumerate(rows)]
        for at, error in masks.refused.items() if masks is not None else ():
            drawn[at] = Drawn(rows[at].seq_id, chosen[at], error=error)
        return drawn


def _banned(rows: Rows[Sequence]) -> tuple[Tensor, Tensor]:
    """Row and id of each end token that may not be drawn yet."""
    pairs = [(at, token) for at, row in enumerate(rows) if row.bans_eos for token in row.params.eos_ids]
    index = torch.tensor(pairs, dtype=torch.long).view(-1, 2)
    return index[:, 0], index[:, 1]


def argmax(scores: Tensor) -> Tensor:
    """[rows] the lowest id of each row's highest score [rows, vocab]; a NaN counts as highest.

    On the CPU by the highest of each block first: torch's argmax reads bfloat16 number by number, its amax does not.
    """
    size = scores.shape[1]
    if scores.device.type != "cpu" or size <= _BLOCK:
        return scores.argmax(dim=-1)
    whole = size - size % _BLOCK
    highest = scores[:, :whole].view(len(scores), -1, _BLOCK).amax(dim=-1)
    if whole < size:
        highest = torch.cat([highest, scores[:, whole:].amax(dim=-1, keepdim=True)], dim=1)
    start = highest.argmax(dim=-1, keepdim=True) * _BLOCK
    ids = (start + torch.arange(_BLOCK)).clamp_(max=size - 1)
    return ids.gather(1, scores.gather(1, ids).argmax(dim=-1, keepdim=True))[:, 0]


def _choose(scores: Tensor, row: Sequence) -> tuple[int, bool]:
    """The token of a row with bias, penalties or temperature, and whether its score is a number; ``scores`` [vocab] in
    float32 are used up."""
    if row.params.logit_bias:
        biased(scores, row.params.logit_bias)
    if _penalised(row):
        _penalise(scores, row)
    best = int(scores.argmax())
    finite = bool(scores[best].isfinite())
    if finite and row.params.temperature > 0:
        return _sample(scores, row.params, uniform(row.params.seed, len(row.output_ids))), True
    return best, finite


def _changed(row: Sequence) -> bool:
    """Its scores are not those of the model."""
    return bool(row.params.logit_bias) or _penalised(row)


def biased(scores: Tensor, bias: tuple[tuple[int, float], ...]) -> None:
    """What a request adds to the scores of some tokens, in place on [vocab]."""
    ids, added = zip(*bias, strict=True)
    scores.index_add_(0, torch.tensor(ids, device=scores.device), torch.tensor(added, device=scores.device))


def _penalised(row: Sequence) -> bool:
    params = row.params
    return (params.repetition_penalty, params.frequency_penalty, params.presence_penalty) != (1.0, 0, 0)


def _penalise(scores: Tensor, row: Sequence) -> None:
    """All penalties, in place on one row [vocab]."""
    params = row.params
    if params.repetition_penalty != 1.0:
        repetition(scores, row.prompt_ids + row.output_ids, params.repetition_penalty)
    if row.output_ids and (params.frequency_penalty or params.presence_penalty):
        counted(scores, row.output_ids, params.frequency_penalty, params.presence_penalty)


def repetition(scores: Tensor, seen: list[int], penalty: float) -> None:
    """CTRL's penalty (arXiv 1909.05858, as RepetitionPenaltyLogitsProcessor), in place on [vocab]."""
    ids = torch.tensor(sorted(set(seen)), device=scores.device)
    value = scores[ids]
    scores[ids] = torch.where(value < 0, value * penalty, value / penalty)


def counted(scores: Tensor, generated: list[int], frequency: float, presence: float) -> None:
    """OpenAI's penalties: each generated token loses frequency · its count + presence, in place on [vocab]."""
    ids, counts = torch.unique(torch.tensor(generated, device=scores.device), return_counts=True)
    scores[ids] -= frequency * counts + presence


def _drawn(row: Sequence, token: int, finite: bool, told: tuple[float, Alternatives] | None) -> Drawn:
    if not finite:
        return Drawn(row.seq_id, token, error=FloatingPointError("the model gave logits that are not numbers"))
    logprob, top = told or (None, ())
    return Drawn(row.seq_id, token, logprob, top=top)


def _sample(scores: Tensor, params: Sampling, draw: float) -> int:
    """Invert ``draw`` over the warped distribution of one row [vocab]."""
    scores = scores / params.temperature
    total = torch.logsumexp(scores, dim=-1)
    size = min(len(scores), _PREFIX)
    while True:
        probs, ids, complete = _head(scores, total, size)
        token = _invert(probs, ids, complete, params, draw)
        if token is not None:
            return token
        size = min(len(scores), 16 * size)


def _head(scores: Tensor, total: Tensor, size: int) -> tuple[Tensor, Tensor, bool]:
    """The most probable candidates, sorted by (probability falling, id rising), and whether they are all that
    can be drawn. Ties with the last are left out unless all are there: which of them the selection found is chance."""
    if size == len(scores):
        values, ids = torch.sort(scores, descending=True, stable=True)
        return torch.exp((values - total).double()), ids, True
    values, ids = torch.topk(scores, size, sorted=False)
    least = values.min()
    sure = values > least
    values, ids = values[sure], ids[sure]
    ids, order = torch.sort(ids)
    values, fall = torch.sort(values[order], descending=True, stable=True)
    return torch.exp((values - total).double()), ids[fall], bool(least == float("-inf"))


def _invert(probs: Tensor, ids: Tensor, complete: bool, params: Sampling, draw: float) -> int | None:
    """The token whose share of the kept probability holds ``draw``; None if these candidates do not decide it."""
    if not complete and _top_k_beyond(probs, params.top_k):
        return None
    kept = kept_prefix(probs, params)
    whole = not complete and kept == len(probs)  # nothing was cut here: a cut may lie further on, or there is none
    if whole and (not kept or params.top_p < 1.0 or params.min_p > 0.0):
        return None
    cumulative = torch.cumsum(probs[:kept], dim=0)
    mass = 1.0 if whole else float(cumulative[-1])
    index = int(torch.searchsorted(cumulative, draw * mass, right=True))
    if index == kept and whole:
        return None
    return int(ids[min(index, kept - 1)])


def _top_k_beyond(probs: Tensor, top_k: int) -> bool:
    """True if the k-th candidate, or a tie with it, may lie behind these."""
    return top_k > 0 and (top_k >= len(probs) or bool(probs[top_k - 1] == probs[-1]))


def kept_prefix(probs: Tensor, params: Sampling) -> int:
    """How many of the candidates, sorted by falling probability, the warpers leave; at least one.

    ``probs`` are those after temperature over the whole vocabulary. Each warper sees what the one before it left.
    """
    kept = len(probs)
    if kept and params.top_k and params.top_k < kept:
        kept = int((probs >= probs[params.top_k - 1]).sum())  # ties with the k-th stay
    if kept and params.top_p < 1.0:
        mass = float(probs[:kept].sum()) if params.top_k else 1.0
        before = torch.cumsum(probs[:kept], dim=0) - probs[:kept]
        kept = max(1, int((before < params.top_p * mass).sum()))
    if kept and params.min_p > 0.0:
        kept = max(1, int((probs[:kept] >= params.min_p * probs[0]).sum()))
    return kept
