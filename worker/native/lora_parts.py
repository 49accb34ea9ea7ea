"""How the LoRA part of neighbouring rows is computed: by our own kernels on the CPU, elsewhere as batched products.

Batched products are padded and divided by rough cost. Weights are read in place, never gathered per token. Knows
neither modules nor adapters.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from lorapool.worker.kernels import lora as lora_kernel

# Rough microseconds of one batched product: to call it, per slot read, per row, and more per row where rows are padded.
_CALL, _SLOT, _ROW, _PADDED_ROW = 8.0, 1.0, 0.2, 0.35
_FEW = 8  # rows of a slot: segments of fewer are not padded to the length of longer ones

Span = tuple[int, int, int]  # slot, and the rows [start, stop) of one segment


Bound = Callable[[Tensor, Sequence[Tensor]], None]  # adds to outputs [rows, out] in place, given an input [rows, in]
Ups = Sequence[tuple[int, Tensor]]  # of each module its first column among A's products, and its B's [slots, rank, out]


class Part(Protocol):
    """Some neighbouring rows of the flat row, computed together."""

    def bind(self, down: Tensor, ups: Ups) -> Bound:
        """Make ready for modules that read one input, whose A's are ``down`` [slots, in, ranks]."""
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

    def bind(self, down: Tensor, ups: Ups) -> Bound:
        factors = down[self.slot : self.slot + self.count]
        sites = [(first, first + up.shape[1], up[self.slot : self.slot + self.count]) for first, up in ups]

        def bound(x: Tensor, outs: Sequence[Tensor]) -> None:
            rows = x[self.start : self.stop] if self.pad is None else x.index_select(0, self.pad)
            hidden = torch.bmm(rows.view(self.count, self.each, -1), factors)
            for (first, last, weights), out in zip(sites, outs, strict=True):
                self._add(hidden[:, :, first:last], weights, out)

        return bound

    def _add(self, hidden: Tensor, weights: Tensor, out: Tensor) -> None:
        rows = out[self.start : self.stop]
        if self.keep is None and out.dtype == weights.dtype:
            rows.view(self.count, self.each, -1).baddbmm_(hidden, weights)
            return
        delta = torch.bmm(hidden, weights).view(-1, out.shape[-1])
        rows += delta if self.keep is None else delta.index_select(0, self.keep)


@dataclass(frozen=True, slots=True, eq=False)
class Groups:
    """Rows of any slots by the kernel of lora_kernel; ``listed`` as its ``row_tiles`` makes them."""

    listed: Tensor

    def bind(self, down: Tensor, ups: Ups) -> Bound:
        return lora_kernel.bind(down, ups, self.listed)


def plan_parts(spans: list[Span], dtype: torch.dtype, device: torch.device) -> list[Part]:
    """The cheapest way to compute these segments with weights of a dtype."""
    if not spans:
        return []
    if lora_kernel.serves(dtype, device):
        return [Groups(lora_kernel.row_tiles(spans))]
    return [_tile(tile, device) for run in _runs(spans) for tile in _partition(run)]


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
