"""LoRA's two products for rows of many adapters, a few rows of each, as one kernel of our own.

torch's products rearrange a weight before they multiply, which for four rows of an adapter takes longer than reading
it. This reads each weight once, as it lies, for four rows together, and sums in float32. A row's sums are made in the
same order whatever its neighbours are.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from ctypes import addressof
from dataclasses import dataclass
from functools import cache, partial, reduce
from itertools import chain

import torch
from torch import Tensor

from lorapool.worker.kernels import llvm
from lorapool.worker.kernels.llvm import Kernel, arguments, compiled, side_by_side
from lorapool.worker.kernels.memory import DTYPES, Floats, Ints
from lorapool.worker.kernels.program import Program
from lorapool.worker.kernels.values import LANES, Condition, Int, fma

ROWS = 4  # of a tile, computed together; fewer are filled up with the last one, which then is written twice
_CHUNK = 512  # inputs converted to float32 at a time
_PIECE = 64 * LANES  # outputs of a tile that one thread computes at a time
_AHEAD = 8 * LANES  # how many outputs ahead weights are asked for
_SITE = 6  # numbers that describe a module: its weights, first column, rank, width, and where its output lies


def serves(dtype: torch.dtype, device: torch.device) -> bool:
    """Whether the kernel computes weights of this dtype, of any size, on this device."""
    return device.type == "cpu" and dtype in DTYPES and llvm.at_hand()


def row_tiles(segments: Sequence[tuple[int, int, int]]) -> Tensor:
    """Divide segments (slot, start, stop) into tiles of rows: int32 [tiles, 1 + ROWS], a slot and its rows."""
    starts = [(slot, at, stop) for slot, start, stop in segments for at in range(start, stop, ROWS)]
    tiles = [[slot, *(min(at + row, stop - 1) for row in range(ROWS))] for slot, at, stop in starts]
    return torch.tensor(tiles, dtype=torch.int32).view(-1, 1 + ROWS)


def bind(
    weights: Tensor, ups: Sequence[tuple[int, Tensor]], tiles: Tensor
) -> Callable[[Tensor, Sequence[Tensor]], None]:
    """Make ready for modules that read one input. ``weights`` [slots, in, ranks] holds the A's of all of them; ``ups``
    is of each its first column there, and its B's [slots, rank, out]; ``tiles`` as ``row_tiles`` makes them.

    The function adds to each module's ``outs`` [rows, out] in place, given ``x`` [rows, in]. Weights must stay where
    they are.
    """
    _, width, ranks = weights.shape
    padded = -(-ranks // LANES) * LANES
    sites = arguments(*(value for first, up in ups for value in (up.data_ptr(), first, up.shape[1], up.shape[2], 0, 0)))
    given = arguments(
        0, 0, weights.data_ptr(), width, ranks, 0, padded, tiles.data_ptr(), len(tiles), addressof(sites), len(ups)
    )
    dtype = weights.dtype

    def add(x: Tensor, outs: Sequence[Tensor], _keep: object = (weights, ups, tiles)) -> None:
        x, hidden = side_by_side(x), torch.empty(len(x), padded, dtype=torch.float32)
        given[0], given[1], given[5] = x.data_ptr(), x.stride(0), hidden.data_ptr()
        for index, out in enumerate(outs):
            assert out.stride(1) == 1 or out.shape[1] == 1, "outputs of a row must lie side by side"
            sites[_SITE * index + 4], sites[_SITE * index + 5] = out.data_ptr(), out.stride(0)
        _kernel(dtype, outs[0].dtype)(given)

    return add


def prepare(dtype: torch.dtype) -> None:
    """Compile what a dtype needs: about a tenth of a second, once."""
    _kernel(dtype, dtype)


@cache
def _kernel(dtype: torch.dtype, out: torch.dtype) -> Kernel:
    return compiled(partial(_emit, dtype, out), 11)


@dataclass(frozen=True, slots=True)
class _RowTiles:
    """The tiles' entries [count, 1 + ROWS]."""

    entries: Ints
    count: Int

    def __getitem__(self, index: Int) -> tuple[Int, list[Int]]:
        """A tile's slot and rows."""
        slot, *rows = [self.entries[index * (1 + ROWS) + place] for place in range(1 + ROWS)]
        return slot, rows


@dataclass(frozen=True, slots=True)
class _Matrix:
    """Rows of floats, ``stride`` elements apart."""

    floats: Floats
    stride: Int


def _emit(dtype: torch.dtype, out: torch.dtype, program: Program) -> None:
    """All A products, then, when every thread has come so far, all B products."""
    x, stride, weights, width, ranks, hidden, padded, entries, count, sites, modules = program.arguments
    tiles = _RowTiles(Ints(entries, bits=32), count)
    products = _Matrix(program.floats(hidden, torch.float32), padded)
    given = _Matrix(program.floats(x, dtype), stride)
    _emit_shrink(program, tiles, given, _Matrix(program.floats(weights, dtype), ranks), width, products)
    program.barrier()
    numbers = Ints(sites)
    with program.loop(0, modules) as module:
        up, first, rank, outputs, target, target_stride = [numbers[module * _SITE + place] for place in range(_SITE)]
        expanded = _Matrix(program.floats(target, out), target_stride)
        expand = _Expand(program, products, first, rank, _Matrix(program.floats(up, dtype), outputs), expanded)
        expand.emit(tiles)


def _emit_shrink(program: Program, tiles: _RowTiles, x: _Matrix, down: _Matrix, width: Int, products: _Matrix) -> None:
    """A's products: an item is a tile and one vector of its ranks. ``down`` lies as [slots, width, ranks]."""
    ranks = down.stride
    inputs = program.buffer(ROWS * _CHUNK)
    # Where registers suffice, of even and odd inputs apart: both can proceed.
    apart = 2 if llvm.registers() >= 2 * ROWS + 2 else 1
    sums = [[program.variable() for _ in range(ROWS)] for _ in range(apart)]

    def convert(first: Int, rows: list[Int], at: Int, mask: Condition | None) -> None:
        for place, row in enumerate(rows):
            inputs.store(at + place * _CHUNK, x.floats.load(row * x.stride + first + at, mask), mask)

    def multiply(at: Int, weight: Int, which: int, mask: Condition | None) -> None:
        factor = down.floats.load(weight, mask)
        for place, total in enumerate(sums[which]):
            total.set(fma(factor, inputs[at + place * _CHUNK], total.get()))

    def compute(rows: list[Int], line: Int, rank: Int, mask: Condition | None) -> None:
        with program.loop(0, width, _CHUNK) as first:
            size = (width - first).min(_CHUNK)
            program.vectors(0, size, partial(convert, first, rows))
            whole = size.round_down(apart)
            with program.loop(0, whole, apart) as at:
                for which in range(apart):
                    multiply(at + which, (line + first + at + which) * ranks + rank, which, mask)
            with program.when(whole < size):
                multiply(whole, (line + first + whole) * ranks + rank, 0, mask)

    vectors = ranks.ceil_div(LANES)
    with program.items(tiles.count * vectors) as item:
        slot, rows = tiles[item // vectors]
        rank = item % vectors * LANES
        for total in chain.from_iterable(sums):
            total.set(program.vector(0.0))
        with program.when(rank + LANES <= ranks):
            compute(rows, slot * width, rank, None)
        with program.when(rank + LANES > ranks):
            compute(rows, slot * width, rank, (ranks - rank).first_lanes())
        for row, first, *more in zip(rows, *sums, strict=True):
            total = reduce(lambda before, one: before + one.get(), more, first.get())
            products.floats.store(row * products.stride + rank, total)


def _outputs_together() -> int:
    """How many vectors of outputs: their sums, the weights and a factor stay in registers."""
    return next(vectors for vectors in (4, 2, 1) if vectors == 1 or vectors * (ROWS + 1) < llvm.registers())


class _Expand:
    """B's products of one module: an item is a tile and one piece of the module's outputs. ``up`` lies as
    [slots, rank, outputs]."""

    def __init__(self, program: Program, products: _Matrix, first: Int, rank: Int, up: _Matrix, out: _Matrix) -> None:
        self._program, self._products, self._first, self._rank = program, products, first, rank
        self._up, self._out = up, out
        self._vectors = _outputs_together()
        self._sums = [[program.variable() for _ in range(ROWS)] for _ in range(self._vectors)]

    def emit(self, tiles: _RowTiles) -> None:
        program, outputs = self._program, self._up.stride
        pieces = outputs.ceil_div(_PIECE)
        with program.items(tiles.count * pieces) as item:
            slot, rows = tiles[item // pieces]
            start = item % pieces * _PIECE
            stop = (start + _PIECE).min(outputs)
            together = self._vectors * LANES
            wide = start + (stop - start).round_down(together)
            with program.loop(start, wide, together) as at:
                self._compute(slot, rows, self._vectors, at, None)
            program.vectors(wide, stop, partial(self._compute, slot, rows, 1))

    def _compute(self, slot: Int, rows: list[Int], vectors: int, at: Int, mask: Condition | None) -> None:
        """Outputs from ``at`` on: so many vectors of each row."""
        sums = [(vector * LANES, row, self._sums[vector][n]) for vector in range(vectors) for n, row in enumerate(rows)]
        for _, _, total in sums:
            total.set(self._program.vector(0.0))
        with self._program.loop(0, self._rank) as rank:
            self._multiply((slot * self._rank + rank) * self._up.stride + at, rows, rank, vectors, mask)
        places = [row * self._out.stride + at + start for start, row, _ in sums]
        before = [self._out.floats.load(place, mask) for place in places]  # all before a row is written twice
        for place, value, (_, _, total) in zip(places, before, sums, strict=True):
            self._out.floats.store(place, value + total.get(), mask)

    def _multiply(self, weight: Int, rows: list[Int], rank: Int, vectors: int, mask: Condition | None) -> None:
        starts = [vector * LANES for vector in range(vectors)]
        factors = [self._up.floats.load(weight + start, mask) for start in starts]
        if mask is None:
            for start in starts[::2]:
                self._up.floats.prefetch(weight + _AHEAD + start)
        for place, row in enumerate(rows):
            product = self._products.floats[row * self._products.stride + self._first + rank]
            for factor, totals in zip(factors, self._sums, strict=False):
                totals[place].set(fma(factor, product, totals[place].get()))
