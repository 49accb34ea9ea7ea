"""What a forward is given and what it gives: the seam between the runner and a model's arithmetic.

Everything that varies from step to step is an argument: a forward keeps no state between calls. Knows no model.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from lorapool.worker.native.attention import AttentionPlan
from lorapool.worker.native.lora import LoraPlan


@dataclass(frozen=True, slots=True, eq=False)
class Step:
    """One step's rows. ``ids`` and ``positions`` [rows]; ``kept`` [logits]: the rows whose logits are wanted; ``lora``
    is the adapters' plan for all rows, ``head`` for the kept ones."""

    ids: Tensor
    positions: Tensor
    kept: Tensor
    attention: AttentionPlan
    lora: LoraPlan
    head: LoraPlan


class Forward(Protocol):
    """A base model with adapters beside it."""

    def __call__(self, step: Step) -> Tensor:
        """Logits [kept, vocab]."""
        ...

    def set_aside(self) -> AbstractContextManager[None]:
        """Within it, the model's modules compute as transformers made them."""
        ...
