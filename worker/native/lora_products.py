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

SlotRows = tuple[int, int, int]  # slot, and the rows [start, stop) of one segment


Bound = Callable[[Tensor, Sequence[Tensor]], None]  # adds to outputs [rows, out] in place, given an input [rows, in]
Ups = Sequence[tuple[int, Tensor]]  # of each module its first column among A's products, and its B's [slots, rank, out]


class Product(Protocol):
    """Some neighbouring rows of the flat row, computed together."""

    def bind(self, down: Tensor, ups: Ups) -> Bound:
        """Make ready for modules that read one input, whose A's are ``down`` [slots, in, ranks]."""
        ...


@dataclass(frozen=True, slots=True, eq=False)
class PaddedProduct:
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
class KernelProduct:
    """Rows of any slots by the kernel of lora_kernel; ``listed`` as its ``row_tiles`` makes them."""

    listed: Tensor

    def bind(self, down: Tensor, ups: Ups) -> Bound:
        return lora_kernel.bind(down, ups, self.listed)


def plan_products(segments: list[SlotRows], dtype: torch.dtype, device: torch.device) -> list[Product]:
    """The cheapest way to compute these segments with weights of a dtype."""
    if not segments:
        return []
    if lora_kernel.serves(dtype, device):
        return [KernelProduct(lora_kernel.row_tiles(segments))]
    return [_padded(part, device) for run in _runs(segments) for part in _partition(run)]


def _padded(segments: list[SlotRows], device: torch.device) -> PaddedProduct:
    first, last = segments[0][0], segments[-1][0]
    count, each = last - first + 1, max(stop - start for _, start, stop in segments)
    start, stop = segments[0][1], segments[-1][2]
    if stop - start == count * each:
        return PaddedProduct(start, stop, first, count, each)
    pad = [start] * (count * each)
    keep: list[int] = []
    for slot, begin, end in segments:
        at = (slot - first) * each
        pad[at : at + end - begin] = range(begin, end)
        keep += range(at, at + end - begin)
    return PaddedProduct(start, stop, first, count, each, *(torch.tensor(ids, device=device) for ids in (pad, keep)))


def _runs(segments: list[SlotRows]) -> list[list[SlotRows]]:
    """Split where rows do not touch, and where segments of few rows meet longer ones."""
    runs: list[list[SlotRows]] = []
    for segment in segments:
        if runs and runs[-1][-1][2] == segment[1] and _few(runs[-1][-1]) == _few(segment):
            runs[-1].append(segment)
        else:
            runs.append([segment])
    return runs


def _few(segment: SlotRows) -> bool:
    return segment[2] - segment[1] <= _FEW


def _partition(segments: list[SlotRows]) -> list[list[SlotRows]]:
    """Split segments into padded products: join neighbours while one padded product is cheaper than two."""
    parts: list[list[SlotRows]] = []
    for segment in segments:
        if parts and _joins(parts[-1], segment):
            parts[-1].append(segment)
        else:
            parts.append([segment])
    return parts


def _joins(part: list[SlotRows], segment: SlotRows) -> bool:
    if part[-1][0] >= segment[0] or part[-1][2] != segment[1]:
        return False  # slots must rise, rows must touch
    return _cost([*part, segment]) <= _cost(part) + _cost([segment])


def _cost(part: list[SlotRows]) -> float:
    slots = part[-1][0] - part[0][0] + 1
    sizes = {stop - start for _, start, stop in part}
    row = _ROW if len(sizes) == 1 and slots == len(part) else _PADDED_ROW
    return _CALL + slots * (_SLOT + row * max(sizes))
