"""Log probabilities of a step: of the tokens that were drawn, and of the most probable ones beside them.

By the raw logits in float32, before any processor: they tell of the model, not of the params. Only for rows that asked;
one log softmax for all of them. Keeps no state between steps.
"""

from __future__ import annotations

from collections.abc import Sequence as Rows

import torch
from torch import Tensor

from lorapool.worker.engine.port import Alternatives
from lorapool.worker.engine.sequence import Sequence


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
        """The ``count`` most probable tokens of each row, the lowest id first among equals. Which of several at the
        last place a selection finds is chance: all that are as good are looked at. What is no number is left out."""
        last = torch.topk(self._table, count, sorted=True).values[:, -1:]
        places, ids = ((self._table >= last) & self._table.isfinite()).nonzero(as_tuple=True)
        found: list[list[tuple[float, int]]] = [[] for _ in self._top]
        values = self._table[places, ids]
        for place, token_id, value in zip(places.tolist(), ids.tolist(), values.tolist(), strict=True):
            found[place].append((-value, token_id))
        return [tuple((token_id, -value) for value, token_id in sorted(row)[:count]) for row in found]
