"""LoRA's two products for rows of many adapters, a few rows of each, as one kernel of our own.

torch's products rearrange a weight before they multiply, which for four rows of an adapter takes longer than reading
it. This reads each weight once, as it lies, for four rows together, and sums in float32. A row's sums are made in the
same order whatever its neighbours are.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from ctypes import addressof
from functools import cache, partial

import torch
from llvmlite.ir import Value
from torch import Tensor

from lorapool.worker.kernels.llvm import (
    DTYPES,
    F32,
    LANES,
    VECTOR,
    Code,
    Floats,
    Kernel,
    arguments,
    compiled,
    every,
    number,
    side_by_side,
)

ROWS = 4  # computed together; fewer are filled up with the last one, which then is written twice
_CHUNK = 512  # inputs converted to float32 at a time
_COLUMNS = 4  # vectors of outputs computed together
_PIECE = 16 * _COLUMNS * LANES  # outputs of a tile that one thread computes at a time
_AHEAD = 2 * _COLUMNS * LANES  # how many outputs ahead weights are asked for
_SITE = 6  # numbers that describe a module: its weights, first column, rank, width, and where its output lies
_ZERO = every(VECTOR, 0.0)


def serves(dtype: torch.dtype, device: torch.device) -> bool:
    """Whether the kernel computes weights of this dtype on this device."""
    return device.type == "cpu" and dtype in DTYPES


def tiles(segments: Sequence[tuple[int, int, int]]) -> Tensor:
    """Divide segments (slot, start, stop) into groups of rows: int32 [groups, 1 + ROWS], a slot and its rows."""
    groups = [(slot, at, stop) for slot, start, stop in segments for at in range(start, stop, ROWS)]
    listed = [[slot, *(min(at + row, stop - 1) for row in range(ROWS))] for slot, at, stop in groups]
    return torch.tensor(listed, dtype=torch.int32).view(-1, 1 + ROWS)


def bind(
    weights: Tensor, ups: Sequence[tuple[int, Tensor]], groups: Tensor
) -> Callable[[Tensor, Sequence[Tensor]], None]:
    """Make ready for modules that read one input. ``weights`` [slots, in, ranks] holds the A's of all of them; ``ups``
    is of each its first column there, and its B's [slots, rank, out]; ``groups`` as ``tiles`` makes them.

    The function adds to each module's ``outs`` [rows, out] in place, given ``x`` [rows, in]. Weights must stay where
    they are.
    """
    _, width, ranks = weights.shape
    padded = -(-ranks // LANES) * LANES
    sites = arguments(*(value for first, up in ups for value in (up.data_ptr(), first, up.shape[1], up.shape[2], 0, 0)))
    given = arguments(
        0, 0, weights.data_ptr(), width, ranks, 0, padded, groups.data_ptr(), len(groups), addressof(sites), len(ups)
    )
    dtype = weights.dtype

    def add(x: Tensor, outs: Sequence[Tensor], _keep: object = (weights, ups, groups)) -> None:
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
    return compiled(partial(_write, dtype, out), 11)


def _write(dtype: torch.dtype, out: torch.dtype, code: Code) -> None:
    """All A products, then, when every thread has come so far, all B products."""
    x, stride, weights, width, ranks, hidden, padded, groups, count, sites, modules = code.arguments
    _write_down(code, dtype, (x, stride, weights, width, ranks, hidden, padded, groups, count))
    code.barrier()
    with code.loop(number(0), modules) as module:
        site = [code.int64(sites, code.sum(code.product(module, _SITE), at)) for at in range(_SITE)]
        _write_up(code, dtype, out, site, (hidden, padded, groups, count))


def _tile(code: Code, groups: Value, index: Value) -> tuple[Value, list[Value]]:
    slot, *rows = [code.int32(groups, code.sum(code.product(index, 1 + ROWS), at)) for at in range(1 + ROWS)]
    return slot, rows


def _write_down(code: Code, dtype: torch.dtype, given: tuple[Value, ...]) -> None:
    """An item is a tile and one vector of its ranks."""
    x, stride, weights, width, ranks, hidden, padded, groups, count = given
    floats, exact = Floats(code, dtype), Floats(code, torch.float32)
    inputs = code.ir.ptrtoint(code.room(F32, ROWS * _CHUNK), groups.type)
    sums = [[code.room(VECTOR) for _ in range(ROWS)] for _ in range(2)]  # even and odd inputs apart: both can proceed
    vectors = code.pieces(ranks, LANES)

    def convert(first: Value, rows: list[Value], at: Value, mask: Value | None) -> None:
        for row, place in enumerate(rows):
            found = floats.load(x, code.sum(code.product(place, stride), first, at), mask)
            exact.store(found, inputs, code.sum(at, row * _CHUNK))

    def multiply(at: Value, weight: Value, parity: int, mask: Value | None) -> None:
        factor = floats.load(weights, weight, mask)
        for row in range(ROWS):
            own = code.splat(code.ir.load(code.at(inputs, code.sum(at, row * _CHUNK), F32)))
            room = sums[parity][row]
            code.ir.store(code.multiply_add(own, factor, code.ir.load(room)), room)

    def chunk(first: Value, weight: Value, rows: list[Value], mask: Value | None) -> None:
        size = code.least(code.ir.sub(width, first), number(_CHUNK))
        code.vectors(number(0), size, partial(convert, first, rows))
        even = code.down_to(number(0), size, 2)
        with code.loop(number(0), even, 2) as at:
            for parity in range(2):
                place = code.sum(at, parity)
                multiply(place, code.sum(weight, code.product(code.sum(first, place), ranks)), parity, mask)
        with code.when("<", even, size):
            multiply(even, code.sum(weight, code.product(code.sum(first, even), ranks)), 0, mask)

    first, last = code.share(code.product(count, vectors))
    with code.loop(first, last) as item:
        slot, rows = _tile(code, groups, code.ir.sdiv(item, vectors))
        rank = code.product(code.ir.srem(item, vectors), LANES)
        weight = code.sum(code.product(slot, width, ranks), rank)
        for room in (*sums[0], *sums[1]):
            code.ir.store(_ZERO, room)
        with code.ir.if_else(code.ir.icmp_signed("<=", code.sum(rank, LANES), ranks)) as (whole, part):
            with whole, code.loop(number(0), width, _CHUNK) as at:
                chunk(at, weight, rows, None)
            with part:
                mask = code.mask(code.ir.sub(ranks, rank))
                with code.loop(number(0), width, _CHUNK) as at:
                    chunk(at, weight, rows, mask)
        for row, (even, odd) in enumerate(zip(*sums, strict=True)):
            place = code.sum(code.product(rows[row], padded), rank)
            exact.store(code.ir.fadd(code.ir.load(even), code.ir.load(odd)), hidden, place)


def _write_up(code: Code, dtype: torch.dtype, result: torch.dtype, site: list[Value], given: tuple[Value, ...]) -> None:
    """An item is a tile and one piece of the module's outputs."""
    weights, column, rank, width, out, out_stride = site
    hidden, padded, groups, count = given
    floats, results = Floats(code, dtype), Floats(code, result)
    sums = [[code.room(VECTOR) for _ in range(ROWS)] for _ in range(_COLUMNS)]
    pieces = code.pieces(width, _PIECE)

    def multiply(weight: Value, rows: list[Value], at: Value, columns: int, mask: Value | None) -> None:
        starts = [block * LANES for block in range(columns)]
        factors = [floats.load(weights, code.sum(weight, start), mask) for start in starts]
        if columns > 1:
            for start in starts[::2]:
                code.prefetch(weights, code.sum(weight, _AHEAD + start), floats.kind)
        for row, place in enumerate(rows):
            index = code.sum(code.product(place, padded), column, at)
            own = code.splat(code.ir.load(code.at(hidden, index, F32)))
            for block, factor in enumerate(factors):
                room = sums[block][row]
                code.ir.store(code.multiply_add(own, factor, code.ir.load(room)), room)

    def compute(first: Value, rows: list[Value], columns: int, at: Value, mask: Value | None) -> None:
        rooms = [(block, row) for block in range(columns) for row in range(ROWS)]
        for block, row in rooms:
            code.ir.store(_ZERO, sums[block][row])
        with code.loop(number(0), rank) as inner:
            multiply(code.sum(first, code.product(inner, width), at), rows, inner, columns, mask)
        places = [code.sum(code.product(rows[row], out_stride), at, block * LANES) for block, row in rooms]
        found = [results.load(out, place, mask) for place in places]  # all before a row is written twice
        for (block, row), place, before in zip(rooms, places, found, strict=True):
            results.store(code.ir.fadd(before, code.ir.load(sums[block][row])), out, place, mask)

    first, last = code.share(code.product(count, pieces))
    with code.loop(first, last) as item:
        slot, rows = _tile(code, groups, code.ir.sdiv(item, pieces))
        weight = code.product(slot, rank, width)
        start = code.product(code.ir.srem(item, pieces), _PIECE)
        stop = code.least(code.sum(start, _PIECE), width)
        wide = code.down_to(start, stop, _COLUMNS * LANES)
        with code.loop(start, wide, _COLUMNS * LANES) as at:
            compute(weight, rows, _COLUMNS, at, None)
        code.vectors(wide, stop, partial(compute, weight, rows, 1))
