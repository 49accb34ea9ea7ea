"""LoRA on embeddings: what adapters add to the rows that a batch looks up.

A·x of a one-hot x is a column of A, so that an adapter's part is a look-up of its own and a product of its rank. Kept
per slot at its true rank and only for adapters that have it, since A is as long as the vocabulary. A tied head is
another module and is not touched (as PEFT's unmerged forward does). Knows neither files nor who holds a slot.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor
from torch.nn.functional import embedding


class ModuleWeights(Protocol):
    """What an adapter brings for one module: A [rank, in]; B [out, rank], scaled; gain and offset [out] or None. Of an
    embedding, in is its ids and out its dim."""

    @property
    def A(self) -> Tensor: ...
    @property
    def B(self) -> Tensor: ...
    @property
    def gain(self) -> Tensor | None: ...
    @property
    def offset(self) -> Tensor | None: ...


@dataclass(frozen=True, slots=True, eq=False)
class Table:
    """One adapter's part of one embedding: ``rows`` [ids, rank], ``up`` [rank, dim], ``gain`` [dim] or None."""

    rows: Tensor
    up: Tensor
    gain: Tensor | None

    @property
    def nbytes(self) -> int:
        return self.rows.nbytes + self.up.nbytes + (0 if self.gain is None else self.gain.nbytes)


class EmbeddingTables:
    """By embedding and slot."""

    def __init__(self, paths: Iterable[str], dtype: torch.dtype, device: torch.device) -> None:
        self._tables: dict[str, dict[int, Table]] = {path: {} for path in paths}
        self._dtype, self._device = dtype, device

    def __contains__(self, path: str) -> bool:
        return path in self._tables

    @property
    def nbytes(self) -> int:
        return sum(table.nbytes for tables in self._tables.values() for table in tables.values())

    def slots(self) -> set[int]:
        return {slot for tables in self._tables.values() for slot in tables}

    def write(self, slot: int, path: str, module: ModuleWeights) -> None:
        """Put an adapter's part of one embedding into a slot."""
        assert module.offset is None, f"{path}: an embedding has no bias"
        exact = torch.promote_types(self._dtype, torch.float32)
        self._tables[path][slot] = Table(
            module.A.t().contiguous().to(self._device, self._dtype),
            module.B.t().contiguous().to(self._device, self._dtype),
            None if module.gain is None else module.gain.to(self._device, exact),
        )

    def clear(self, slot: int) -> None:
        for tables in self._tables.values():
            tables.pop(slot, None)

    def apply(self, path: str, ids: Tensor, out: Tensor, segments: Sequence[tuple[int, int, int]]) -> None:
        """Add to ``out`` [rows, dim] in place; ``ids`` [rows]; segments are (slot, start, stop)."""
        tables = self._tables[path]
        for slot, start, stop in segments if tables else ():
            if slot in tables:
                table = tables[slot]
                if table.gain is not None:
                    out[start:stop] *= table.gain
                out[start:stop] += embedding(ids[start:stop], table.rows) @ table.up
