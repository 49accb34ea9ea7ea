"""Attention of rows that compute one token, over the KV cache as it lies, as a kernel of our own.

One pass over a row's blocks, with the softmax's largest score and sum kept as it goes; all query heads of a key head
are computed together, so that keys and values are read and converted once. Everything is summed in float32, in an order
that neighbours do not change.
"""

from __future__ import annotations

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
    bits,
    compiled,
    every,
    number,
    side_by_side,
)

_LARGEST = 256  # of a head's width
_SUMS = 16  # vectors of sums kept in registers: query heads together * a head's vectors


def serves(query: Tensor, values: Tensor, block: int) -> bool:
    """Whether the kernel computes queries [rows, heads, dim] over values [..., value_dim] in blocks of so many."""
    widths = {query.shape[-1], values.shape[-1]}
    fits = all(width % LANES == 0 and width <= _LARGEST for width in widths) and block % LANES == 0
    return query.device.type == "cpu" and query.dtype in DTYPES and query.dtype == values.dtype and fits


def rows(places: list[tuple[int, int, int]]) -> Tensor:
    """What the kernel is told of each row: its row in the lane, its row in the batch, and the positions it may see."""
    return torch.tensor(places, dtype=torch.int64).view(-1, 3)


def decode(query: Tensor, keys: Tensor, values: Tensor, listed: Tensor, scale: float, window: int, out: Tensor) -> None:
    """Write the listed rows of ``out`` [rows, heads, value_dim].

    ``query`` [rows, heads, dim]; ``keys`` and ``values`` [blocks, lane rows, kv_heads, block, dim]; ``window`` in
    tokens, 0 for none.
    """
    _, lane_rows, kv_heads, block, dim = keys.shape
    share = query.shape[1] // kv_heads
    query = side_by_side(query)
    kernel = _kernel(query.dtype, share, dim, values.shape[-1], block)
    kernel(
        arguments(
            query.data_ptr(), query.stride(0), query.stride(1), keys.data_ptr(), values.data_ptr(), lane_rows, kv_heads,
            listed.data_ptr(), len(listed), bits(scale), window, out.data_ptr(), out.stride(0), out.stride(1),
        )
    )  # fmt: skip


@cache
def _kernel(dtype: torch.dtype, share: int, dim: int, value_dim: int, block: int) -> Kernel:
    return compiled(partial(_write, dtype, share, dim, value_dim, block), 14)


class _Heads:
    """Query heads of one key head, and what is known of each so far."""

    def __init__(self, code: Code, count: int, dim: int, value_dim: int, block: int) -> None:
        self.count, self.block = count, block
        self.query = [[code.room(VECTOR) for _ in range(dim // LANES)] for _ in range(count)]
        self.sums = [[code.room(VECTOR) for _ in range(value_dim // LANES)] for _ in range(count)]
        self.largest = [code.room(VECTOR) for _ in range(count)]  # this and the next: one number, in all lanes
        self.total = [code.room(VECTOR) for _ in range(count)]
        self.scores = code.ir.ptrtoint(code.room(F32, count * block), number(0).type)


def _write(dtype: torch.dtype, share: int, dim: int, value_dim: int, block: int, code: Code) -> None:
    """An item is a row and some query heads of one key head."""
    together = max(n for n in range(1, share + 1) if share % n == 0 and (n == 1 or n * value_dim <= _SUMS * LANES))
    query, query_row, query_head, keys, values, lane_rows, kv_heads, listed, count, scale_bits, window, *to = (
        code.arguments
    )
    out, out_row, out_head = to
    floats, exact = Floats(code, dtype), Floats(code, torch.float32)
    heads = _Heads(code, together, dim, value_dim, block)
    scale = code.splat(code.float(scale_bits))
    groups = share // together
    first, last = code.share(code.product(count, kv_heads, groups))
    with code.loop(first, last) as item:
        head = code.product(code.ir.srem(item, code.product(kv_heads, groups)), together)  # the first query head
        kv_head = code.ir.sdiv(head, number(share))
        place = code.product(code.ir.sdiv(item, code.product(kv_heads, groups)), 3)
        lane_row, row, end = (code.int64(listed, code.sum(place, at)) for at in range(3))
        _begin(code, floats, heads, (query, code.product(row, query_row), head, query_head), scale)
        past = code.ir.sub(end, window)
        start = code.ir.select(code.ir.icmp_signed(">", window, number(0)), code.most(past, number(0)), number(0))
        with code.loop(code.ir.sdiv(start, number(block)), code.pieces(end, block)) as at:
            line = code.sum(code.product(code.sum(code.product(at, lane_rows), lane_row), kv_heads), kv_head)
            base, origin = code.product(line, block), code.product(at, block)
            low = code.most(code.ir.sub(start, origin), number(0))
            high = code.least(code.ir.sub(end, origin), number(block))
            _score(code, floats, heads, keys, code.product(base, dim), dim, low, high)
            _weigh(code, exact, heads)
            _gather(code, floats, heads, values, code.product(base, value_dim), value_dim, low, high)
        for index in range(together):
            target = code.sum(code.product(row, out_row), code.product(code.sum(head, index), out_head))
            for vector, room in enumerate(heads.sums[index]):
                value = code.ir.fdiv(code.ir.load(room), code.ir.load(heads.total[index]))
                floats.store(value, out, code.sum(target, vector * LANES))


def _begin(code: Code, floats: Floats, heads: _Heads, where: tuple[Value, ...], scale: Value) -> None:
    query, row, head, stride = where
    for index in range(heads.count):
        for vector, room in enumerate(heads.query[index]):
            place = code.sum(row, code.product(code.sum(head, index), stride), vector * LANES)
            code.ir.store(code.ir.fmul(floats.load(query, place), scale), room)
        for room in (*heads.sums[index], heads.total[index]):
            code.ir.store(every(VECTOR, 0.0), room)
        code.ir.store(every(VECTOR, float("-inf")), heads.largest[index])


def _score(
    code: Code, floats: Floats, heads: _Heads, keys: Value, base: Value, dim: int, low: Value, high: Value
) -> None:
    """The scores of a block's positions [low, high); minus infinity elsewhere."""
    exact = Floats(code, torch.float32)
    for at in range(0, heads.count * heads.block, LANES):
        exact.store(every(VECTOR, float("-inf")), heads.scores, number(at))
    with code.loop(low, high) as position:
        key = [floats.load(keys, code.sum(base, code.product(position, dim), start)) for start in range(0, dim, LANES)]
        for index in range(heads.count):
            found = every(VECTOR, 0.0)
            for part, room in zip(key, heads.query[index], strict=True):
                found = code.multiply_add(part, code.ir.load(room), found)
            place = code.at(heads.scores, code.sum(position, index * heads.block), F32)
            code.ir.store(code.reduced("fadd", found), place)


def _weigh(code: Code, exact: Floats, heads: _Heads) -> None:
    """Make weights of a block's scores; scale down what was summed before if a larger score has come."""
    for index in range(heads.count):
        places = [number(index * heads.block + start) for start in range(0, heads.block, LANES)]
        scores = [exact.load(heads.scores, place) for place in places]
        largest = code.ir.load(heads.largest[index])
        for found in scores:
            largest = code.ir.select(code.ir.fcmp_ordered(">", found, largest), found, largest)
        largest = code.splat(code.reduced("fmax", largest))
        shrink = code.exp(code.ir.fsub(code.ir.load(heads.largest[index]), largest))
        code.ir.store(largest, heads.largest[index])
        total = every(VECTOR, 0.0)
        for place, found in zip(places, scores, strict=True):
            weight = code.exp(code.ir.fsub(found, largest))
            exact.store(weight, heads.scores, place)
            total = code.ir.fadd(total, weight)
        before = code.ir.load(heads.total[index])
        code.ir.store(code.multiply_add(before, shrink, code.splat(code.reduced("fadd", total))), heads.total[index])
        for room in heads.sums[index]:
            code.ir.store(code.ir.fmul(code.ir.load(room), shrink), room)


def _gather(
    code: Code, floats: Floats, heads: _Heads, values: Value, base: Value, dim: int, low: Value, high: Value
) -> None:
    """Add a block's values, weighted."""
    with code.loop(low, high) as position:
        value = [
            floats.load(values, code.sum(base, code.product(position, dim), start)) for start in range(0, dim, LANES)
        ]
        for index in range(heads.count):
            place = code.at(heads.scores, code.sum(position, index * heads.block), F32)
            weight = code.splat(code.ir.load(place))
            for part, room in zip(value, heads.sums[index], strict=True):
                code.ir.store(code.multiply_add(weight, part, code.ir.load(room)), room)
