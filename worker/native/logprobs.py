"""Log probabilities of a step: of the tokens that were drawn, and of the most probable ones beside them.

By the raw logits in float32, before any processor: they tell of the model, not of the params. Only for rows that asked;
one log softmax for all of them. Keeps no state between steps.
"""

from __future__ import annotations

from collections.abc import Sequence as Rows
from math import isfinite

import torch
from torch import Tensor

from lorapool.worker.engine.port import Alternatives
from lorapool.worker.engine.sequence import Sequence

_TIES = 32  # looked at beyond those asked for: mostly all that are as good as the last of these


class Logprobs:
    """Of the rows that asked; ``logits`` [rows, vocab] as the model gave them, which may be changed afterwards."""

    def __init__(self, logits: Tensor, rows: Rows[Sequence]) -> None:
        self._asked = [at for at, row in enumerate(rows) if row.params.logprobs]
        self._top = [rows[at].params.top_logprobs for at in self._asked]
        if self._asked:
            own = logits if len(self._asked) == len(rows) else logits[self._asked]
            self._table = torch.log_softmax(own, dim=-1, dtype=torch.float32)

    def told(self, chosen: Rows[int]) -> dict[int, tuple[float, Alternatives]]:
        """By row: the log probability of the token that was ``chosen`` [rows] there, and the alternatives."""
        if not self._asked:
            return {}
        ids = torch.tensor([chosen[at] for at in self._asked], device=self._table.device)
        own: list[float] = self._table.gather(1, ids[:, None])[:, 0].tolist()
        return dict(zip(self._asked, zip(own, self._alternatives(), strict=True), strict=True))

    def _alternatives(self) -> list[Alternatives]:
        count = min(max(self._top), self._table.shape[1])
        if not count:
            return [()] * len(self._top)
        return [best[:asked] for best, asked in zip(self._best(count), self._top, strict=True)]

    def _best(self, count: int) -> list[Alternatives]:
        """The ``count`` most probable tokens of each row, the lowest id first among equals. What is no number is left
        out."""
        looked = min(count + _TIES, self._table.shape[1])
        values, ids = torch.topk(self._table, looked, sorted=True)
        rows = zip(values.tolist(), ids.tolist(), strict=True)
        return [self._sorted(place, count, *row) for place, row in enumerate(rows)]

    def _sorted(self, place: int, count: int, values: list[float], ids: list[int]) -> Alternatives:
        """Which of several equals a selection finds is chance: where they may go on behind it, all are looked at."""
        if values[-1] == values[count - 1] and len(values) < self._table.shape[1]:
            alike = (self._table[place] >= values[-1]).nonzero()[:, 0]
            values, ids = self._table[place, alike].tolist(), alike.tolist()
        found = sorted((-value, token_id) for value, token_id in zip(values, ids, strict=True) if isfinite(value))
        return tuple((token_id, -value) for value, token_id in found[:count])
