"""How the LoRA part of neighbouring rows is computed: as batched products over slots, or as sums row by row.

Chooses by rough cost. Weights are read in place, never gathered per token. Knows neither modules nor adapters.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

import torch
from torch import Tensor

# Rough microseconds of one batched product: to call it, per slot read, per row, and more per row where rows are padded.
_CALL, _SLOT, _ROW, _PADDED_ROW = 8.0, 1.0, 0.2, 0.35
_SUMS, _SUM, _FEW = 12.0, 0.45, 8  # of a weighted sum: to call it, per row; and rows of a slot up to which it is tried

Span = tuple[int, int, int]  # slot, and the rows [start, stop) of one segment


class Part(Protocol):
    """Some neighbouring rows of the flat row, computed together."""

    def of(self, store: Tensor) -> Tensor:
        """What the part reads of a store [slots, in, out], as a view."""
        ...

    def down(self, x: Tensor, weights: Tensor) -> Tensor:
        """A·x of the part's rows of ``x`` [rows, in]: [some, more, out]."""
        ...

    def up(self, hidden: Tensor, weights: Tensor, out: Tensor) -> None:
        """Add B'·hidden to the part's rows of ``out`` [rows, out] in place."""
        ...


@dataclass(frozen=True, slots=True, eq=False)
class Tile:
    """Rows ``start`` to ``stop`` as one batched product: ``count`` neighbouring slots from ``slot`` on, ``each`` rows
    a slot.

    Where segments are unequal, ``pad`` [count * each] picks the rows to compute and ``keep`` the ones that count.
    """

    start: int
    stop: int
    slot: int
    count: int
    each: int
    pad: Tensor | None = None
    keep: Tensor | None = None

    def of(self, store: Tensor) -> Tensor:
        return store[self.slot : self.slot + self.count]

    def down(self, x: Tensor, weights: Tensor) -> Tensor:
        rows = x[self.start : self.stop] if self.pad is None else x.index_select(0, self.pad)
        return torch.bmm(rows.view(self.count, self.each, -1), weights)

    def up(self, hidden: Tensor, weights: Tensor, out: Tensor) -> None:
        rows = out[self.start : self.stop]
        if self.keep is None and out.dtype == weights.dtype:
            rows.view(self.count, self.each, -1).baddbmm_(hidden, weights)
            return
        delta = torch.bmm(hidden, weights).view(-1, out.shape[-1])
        rows += delta if self.keep is None else delta.index_select(0, self.keep)


@dataclass(frozen=True, slots=True, eq=False)
class Sums:
    """Rows ``start`` to ``stop``, few of each slot, as weighted sums of weight rows: ``slots`` [rows] names each row's.

    An embedding bag reads the weights once as they lie; a batched product of a few rows spends most of its time on
    rearranging them. Its cost is that of the rows, whatever the number of slots.
    """

    start: int
    stop: int
    slots: Tensor
    indices: dict[int, tuple[Tensor, Tensor]] = field(default_factory=dict)  # by the rows a slot has in the store

    def of(self, store: Tensor) -> Tensor:
        return store

    def down(self, x: Tensor, weights: Tensor) -> Tensor:
        return self._sums(x[self.start : self.stop], weights)[None]

    def up(self, hidden: Tensor, weights: Tensor, out: Tensor) -> None:
        out[self.start : self.stop] += self._sums(hidden[0], weights)

    def _sums(self, x: Tensor, store: Tensor) -> Tensor:
        """[rows, in] times each row's [in, out] of ``store`` [slots, in, out]."""
        width = store.shape[1]
        if width not in self.indices:
            rows = self.slots[:, None] * width + torch.arange(width, dtype=torch.int32)
            self.indices[width] = rows.flatten(), torch.arange(len(rows), dtype=torch.int32) * width
        rows, offsets = self.indices[width]
        found: Tensor = torch.embedding_bag(
            store.view(-1, store.shape[-1]), rows, offsets, mode=0, per_sample_weights=x.reshape(-1)
        )[0]
        return found


def plan_parts(spans: list[Span], device: torch.device) -> list[Part]:
    """The cheapest way to compute these segments."""
    return [part for run in _runs(spans) for part in _parts(run, device)]


def _parts(run: list[Span], device: torch.device) -> list[Part]:
    tiles = _partition(run)
    rows = [slot for slot, start, stop in run for _ in range(start, stop)]
    if device.type == "cpu" and _SUMS + _SUM * len(rows) < sum(map(_cost, tiles)):
        return [Sums(run[0][1], run[-1][2], torch.tensor(rows, dtype=torch.int32))]
    return [_tile(tile, device) for tile in tiles]


def _tile(spans: list[Span], device: torch.device) -> Tile:
    first, last = spans[0][0], spans[-1][0]
    count, each = last - first + 1, max(stop - start for _, start, stop in spans)
    start, stop = spans[0][1], spans[-1][2]
    if stop - start == count * each:
        return Tile(start, stop, first, count, each)
    pad = [start] * (count * each)
    keep: list[int] = []
    for slot, begin, end in spans:
        at = (slot - first) * each
        pad[at : at + end - begin] = range(begin, end)
        keep += range(at, at + end - begin)
    return Tile(start, stop, first, count, each, *(torch.tensor(ids, device=device) for ids in (pad, keep)))


def _runs(spans: list[Span]) -> list[list[Span]]:
    """Split where rows do not touch, and where segments of few rows meet longer ones."""
    runs: list[list[Span]] = []
    for span in spans:
        if runs and runs[-1][-1][2] == span[1] and _few(runs[-1][-1]) == _few(span):
            runs[-1].append(span)
        else:
            runs.append([span])
    return runs


def _few(span: Span) -> bool:
    return span[2] - span[1] <= _FEW


def _partition(spans: list[Span]) -> list[list[Span]]:
    """Split segments into tiles: join neighbours while one padded product is cheaper than two."""
    parts: list[list[Span]] = []
    for span in spans:
        if parts and _joins(parts[-1], span):
            parts[-1].append(span)
        else:
            parts.append([span])
    return parts


def _joins(part: list[Span], span: Span) -> bool:
    if part[-1][0] >= span[0] or part[-1][2] != span[1]:
        return False  # slots must rise, rows must touch
    return _cost([*part, span]) <= _cost(part) + _cost([span])


def _cost(part: list[Span]) -> float:
    slots = part[-1][0] - part[0][0] + 1
    sizes = {stop - start for _, start, stop in part}
    row = _ROW if len(sizes) == 1 and slots == len(part) else _PADDED_ROW
    return _CALL + slots * (_SLOT + row * max(sizes))
