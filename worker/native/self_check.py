"""The start-up check: does a row in a batch get the answer that the unchanged model gives it alone?

Runs a small ragged batch with chunks and decode steps through a runner and compares each row's logits with those of
transformers' own eager forward of the whole row. It stands in for a list of architectures: what passes may be served,
what does not is refused. It also
chooses: a flat forward that fails it gives way to Hugging Face's modules. Windows are longer than these rows: the probe
compares them with the config by name.
"""

from __future__ import annotations

from typing import Any, Protocol

import torch
from torch import Tensor

from lorapool.shared.errors import BaseModelError
from lorapool.shared.job import BASE_REF
from lorapool.worker.engine.port import Sampling
from lorapool.worker.engine.sequence import Batch, Sequence, Work

_LENGTHS = (2, 9, 5)
_DECODES = 2
_TOLERANCE = {
    torch.float64: 1e-8,
    torch.float32: 1e-3,
    torch.bfloat16: 0.15,
    torch.float16: 0.05,
}  # of the logits' spread, between a row in a batch and alone
_HALF_TOLERANCE = 0.5
"""Between us and transformers, at the median position, in half precision: where each rounds on its own, a position with
large activations may be off by more than the spread on either side (seen: 1.4, in SmolLM2's bf16 eager forward)."""


class Checked(Protocol):
    """What is checked: a base model on a device."""

    @property
    def model(self) -> Any: ...
    @property
    def dtype(self) -> torch.dtype: ...
    @property
    def vocabulary(self) -> int: ...
    @property
    def max_model_len(self) -> int: ...

    def reserve(self, seq_id: str, tokens: int) -> bool: ...
    def release(self, seq_id: str) -> None: ...
    def all_logits(self, batch: Batch) -> Tensor: ...
    def reference_logits(self, ids: list[int]) -> Tensor: ...


def check(runner: Checked) -> None:
    """Raise BaseModelError if a row's logits in a batch differ from those alone, or from transformers' own."""
    vocabulary, tolerance = runner.vocabulary, _TOLERANCE[runner.dtype]
    rows = [
        [(7 * row + 13 * place + 1) % vocabulary for place in range(n + _DECODES)] for row, n in enumerate(_LENGTHS)
    ]
    rows = [row[: runner.max_model_len] for row in rows]
    together = _teacher_forced(runner, rows)
    alone = [_teacher_forced(runner, [row])[0] for row in rows]
    _compare(runner, "differ from those alone", _distances(together, alone).max(), tolerance)
    own = _distances(together, [runner.reference_logits(row).double() for row in rows])
    exact = runner.dtype in {torch.float32, torch.float64}
    worst, allowed = (own.max(), tolerance) if exact else (own.median(), _HALF_TOLERANCE)
    _compare(runner, "differ from those of transformers' own forward", worst, allowed)


def _distances(actual: list[Tensor], expected: list[Tensor]) -> Tensor:
    """Of each position, the largest difference in units of its row's spread."""
    pairs = zip(actual, expected, strict=True)
    return torch.cat([(one - other).abs().amax(-1) / other.std().clamp_min(1e-12) for one, other in pairs])


def _compare(runner: Checked, what: str, off: Tensor, allowed: float) -> None:
    if not float(off) <= allowed:
        raise BaseModelError(
            f"{type(runner.model).__name__} fails the self-check: a row's logits in a batch {what} by {float(off):.2g} "
            f"of their spread (at most {allowed:g} expected): not served"
        )


def _teacher_forced(runner: Checked, rows: list[list[int]]) -> list[Tensor]:
    """Logits [steps, vocab] of each row: its prompt in two chunks, then one given token at a time."""
    params = Sampling(max_new_tokens=_DECODES)
    sequences = [
        Sequence(f"check-{at}", BASE_REF, row[:-_DECODES], params, row[-_DECODES:]) for at, row in enumerate(rows)
    ]
    for sequence in sequences:
        assert runner.reserve(sequence.seq_id, sequence.length), "the KV cache is too small for the self-check"
    try:
        return _steps(runner, sequences)
    finally:
        for sequence in sequences:
            runner.release(sequence.seq_id)


def _steps(runner: Checked, sequences: list[Sequence]) -> list[Tensor]:
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
