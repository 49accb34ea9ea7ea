"""The start-up check: does a row's answer depend on the rows beside it?

Runs a small ragged batch with chunks and decode steps through a runner and compares each row's logits with those of the
row alone. It stands in for a list of architectures: what passes may be served, what does not is refused.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from lorapool.shared.errors import BaseModelError
from lorapool.shared.job import BASE_REF, SamplingParams
from lorapool.worker.sequence import Batch, Sequence, Work

if TYPE_CHECKING:
    from lorapool.worker.runner import ModelRunner

_LENGTHS = (2, 9, 5)
_DECODES = 2
_TOLERANCE = {
    torch.float64: 1e-8,
    torch.float32: 1e-3,
    torch.bfloat16: 0.15,
    torch.float16: 0.05,
}  # of the logits' spread


class _Silent:
    def push(self, token_id: int) -> str:
        return ""


def check(runner: ModelRunner) -> None:
    """Raise BaseModelError if a row's logits differ from those it has alone."""
    vocabulary = runner.vocabulary
    rows = [
        [(7 * row + 13 * place + 1) % vocabulary for place in range(n + _DECODES)] for row, n in enumerate(_LENGTHS)
    ]
    rows = [row[: runner.max_model_len] for row in rows]
    together = _teacher_forced(runner, rows)
    for index, row in enumerate(rows):
        alone = _teacher_forced(runner, [row])[0]
        off = float((together[index] - alone).abs().max() / alone.std().clamp_min(1e-12))
        if not off <= _TOLERANCE[runner.dtype]:
            raise BaseModelError(
                f"{type(runner.model).__name__} fails the self-check: a row's logits in a batch differ from those alone"
                f" by {off:.2g} of their spread (at most {_TOLERANCE[runner.dtype]:g} expected): not served"
            )


def _teacher_forced(runner: ModelRunner, rows: list[list[int]]) -> list[Tensor]:
    """Logits [steps, vocab] of each row: its prompt in two chunks, then one given token at a time."""
    params = SamplingParams(max_new_tokens=_DECODES)
    sequences = [
        Sequence(f"check-{at}", BASE_REF, row[:-_DECODES], params, 0, _Silent(), row[-_DECODES:])
        for at, row in enumerate(rows)
    ]
    for sequence in sequences:
        assert runner.reserve(sequence.seq_id, sequence.length), "the KV cache is too small for the self-check"
    try:
        return _steps(runner, sequences)
    finally:
        for sequence in sequences:
            runner.release(sequence.seq_id)


def _steps(runner: ModelRunner, sequences: list[Sequence]) -> list[Tensor]:
    """Each row at its own pace, so that prompts, chunks and decode steps meet in one batch."""
    seen: dict[str, list[Tensor]] = {sequence.seq_id: [] for sequence in sequences}
    while works := [Work(row, row.computed, _next(row)) for row in sequences if row.computed < row.length]:
        batch = Batch.of(works)
        logits = runner.all_logits(batch).double()
        offset = 0
        for work in batch.works:
            seen[work.sequence.seq_id].append(logits[offset : offset + work.count])
            offset += work.count
            work.sequence.computed += work.count
    return [torch.cat(seen[sequence.seq_id]) for sequence in sequences]


def _next(row: Sequence) -> int:
    prompt = len(row.prompt_ids) - row.computed
    return min(4, prompt) if prompt > 0 else 1
