"""Attention of rows that compute one token, over the KV cache as it lies, as a kernel of our own.

One pass over a row's blocks, with the softmax's largest score and sum kept as it goes; all query heads of a key head
are computed together, so that keys and values are read and converted once. Everything is summed in float32, in an order
that neighbours do not change.
"""

from __future__ import annotations

from functools import cache, partial

import torch
from torch import Tensor

from lorapool.worker.kernels import llvm
from lorapool.worker.kernels.llvm import Kernel, arguments, bits, compiled, side_by_side
from lorapool.worker.kernels.memory import DTYPES, Floats, Ints
from lorapool.worker.kernels.program import Program
from lorapool.worker.kernels.values import LANES, Float, Int, exp, fma

_LARGEST = 256  # of a head's width
_SUMS = 16  # vectors of sums kept in registers: query heads together * a head's vectors
_NEVER = float("-inf")  # the score of a position that a row may not see


def serves(query: Tensor, values: Tensor, block: int) -> bool:
    """Whether the kernel computes queries [rows, heads, dim] over values [..., value_dim] in blocks of so many."""
    if query.device.type != "cpu" or query.dtype not in DTYPES or query.dtype != values.dtype:
        return False
    widths = {query.shape[-1], values.shape[-1]}
    fits = all(width % LANES == 0 and width <= _LARGEST for width in widths) and block % LANES == 0
    return fits and llvm.at_hand()


def rows(places: list[tuple[int, int, int]]) -> Tensor:
    """What the kernel needs of each row: its row in the cache, its row in the batch, and the positions it may see."""
    return torch.tensor(places, dtype=torch.int64).view(-1, 3)


def decode(query: Tensor, keys: Tensor, values: Tensor, listed: Tensor, scale: float, window: int, out: Tensor) -> None:
    """Write the listed rows of ``out`` [rows, heads, value_dim].

    ``query`` [rows, heads, dim]; ``keys`` and ``values`` [blocks, cache rows, kv_heads, block, dim]; ``window`` in
    tokens, 0 for none.
    """
    _, cache_rows, kv_heads, block, dim = keys.shape
    queries_per_kv = query.shape[1] // kv_heads
    query = side_by_side(query)
    kernel = _kernel(query.dtype, queries_per_kv, dim, values.shape[-1], block)
    kernel(
        arguments(
            query.data_ptr(), query.stride(0), query.stride(1), keys.data_ptr(), values.data_ptr(), cache_rows,
            kv_heads, listed.data_ptr(), len(listed), bits(scale), window, out.data_ptr(), out.stride(0), out.stride(1),
        )
    )  # fmt: skip


@cache
def _kernel(dtype: torch.dtype, queries_per_kv: int, dim: int, value_dim: int, block: int) -> Kernel:
    return compiled(partial(_emit, dtype, queries_per_kv, dim, value_dim, block), 14)


class _Heads:
    """Some query heads of one key head, and what is known of each so far: the largest score, the sum of the weights
    (each one number, in all lanes) and the weighted sum of the values; and the scores of the block at hand."""

    def __init__(self, program: Program, count: int, dim: int, value_dim: int, block: int) -> None:
        self._program, self.count, self.block = program, count, block
        self.query = [[program.variable() for _ in range(dim // LANES)] for _ in range(count)]
        self.sums = [[program.variable() for _ in range(value_dim // LANES)] for _ in range(count)]
        self.largest = [program.variable() for _ in range(count)]
        self.total = [program.variable() for _ in range(count)]
        self.scores = program.buffer(count * block)

    def begin(self, query: Floats, places: list[Int], scale: Float) -> None:
        """Read each head's query, which begins at its place."""
        for head, place in enumerate(places):
            for vector, part in enumerate(self.query[head]):
                part.set(query.load(place + vector * LANES) * scale)
            for total in (*self.sums[head], self.total[head]):
                total.set(self._program.vector(0.0))
            self.largest[head].set(self._program.vector(_NEVER))

    def score(self, keys: Floats, base: Int, dim: int, low: Int, high: Int) -> None:
        """The scores of a block's positions [low, high); minus infinity elsewhere."""
        for start in range(0, self.count * self.block, LANES):
            self.scores.store(self._program.const(start), self._program.vector(_NEVER))
        with self._program.loop(low, high) as position:
            key = [keys.load(base + position * dim + start) for start in range(0, dim, LANES)]
            for head in range(self.count):
                score = self._program.vector(0.0)
                for part, query in zip(key, self.query[head], strict=True):
                    score = fma(part, query.get(), score)
                self.scores[position + head * self.block] = score.sum()

    def weigh(self) -> None:
        """Make weights of a block's scores; scale down what was summed before if a larger score has come."""
        for head in range(self.count):
            starts = range(head * self.block, (head + 1) * self.block, LANES)
            places = [self._program.const(start) for start in starts]
            scores = [self.scores.load(place) for place in places]
            before = self.largest[head].get()
            largest = before
            for score in scores:
                largest = (score > largest).select(score, largest)
            largest = largest.largest().splat()
            self.largest[head].set(largest)
            total = self._program.vector(0.0)
            for place, score in zip(places, scores, strict=True):
                weight = exp(score - largest)
                self.scores.store(place, weight)
                total = total + weight
            shrink = exp(before - largest)
            self.total[head].set(fma(self.total[head].get(), shrink, total.sum().splat()))
            for part in self.sums[head]:
                part.set(part.get() * shrink)

    def gather(self, values: Floats, base: Int, dim: int, low: Int, high: Int) -> None:
        """Add a block's values, weighted."""
        with self._program.loop(low, high) as position:
            value = [values.load(base + position * dim + start) for start in range(0, dim, LANES)]
            for head in range(self.count):
                weight = self.scores[position + head * self.block]
                for part, total in zip(value, self.sums[head], strict=True):
                    total.set(fma(part, weight, total.get()))

    def write(self, out: Floats, places: list[Int]) -> None:
        """Write each head's weighted mean of the values to its place."""
        for head, place in enumerate(places):
            for vector, part in enumerate(self.sums[head]):
                out.store(place + vector * LANES, part.get() / self.total[head].get())


def _emit(dtype: torch.dtype, queries_per_kv: int, dim: int, value_dim: int, block: int, program: Program) -> None:
    """An item is a row and some query heads of one key head."""
    query, query_row, query_head, keys, values, cache_rows, kv_heads, *rest = program.arguments
    listed, count, scale, window, out, out_row, out_head = rest
    queries, results = program.floats(query, dtype), program.floats(out, dtype)
    all_keys, all_values, entries = program.floats(keys, dtype), program.floats(values, dtype), Ints(listed)
    together = _together(queries_per_kv, value_dim)
    heads = _Heads(program, together, dim, value_dim, block)
    items_per_row = kv_heads * (queries_per_kv // together)
    with program.items(count * items_per_row) as item:
        first_head = item % items_per_row * together
        entry = item // items_per_row * 3
        cache_row, row, end = (entries[entry + place] for place in range(3))
        heads.begin(
            queries,
            [row * query_row + (first_head + head) * query_head for head in range(together)],
            scale.as_float32(),
        )
        start = (window > 0).select((end - window).max(0), 0)
        with program.loop(start // block, end.ceil_div(block)) as at:
            base = ((at * cache_rows + cache_row) * kv_heads + first_head // queries_per_kv) * block
            low, high = (start - at * block).max(0), (end - at * block).min(block)
            heads.score(all_keys, base * dim, dim, low, high)
            heads.weigh()
            heads.gather(all_values, base * value_dim, value_dim, low, high)
        heads.write(results, [row * out_row + (first_head + head) * out_head for head in range(together)])


def _together(queries_per_kv: int, value_dim: int) -> int:
    """How many query heads of a key head are computed together: as many as registers hold the sums of."""
    even = [n for n in range(1, queries_per_kv + 1) if queries_per_kv % n == 0]
    return max(n for n in even if n == 1 or n * value_dim <= _SUMS * LANES)
