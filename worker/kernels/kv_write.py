"""New keys and values into the KV cache as it lies, as a kernel of our own: one pass, no index of heads, no copies.

Knows numbers and where they go; whose rows they are is the attention plan's business.
"""

from __future__ import annotations

from functools import cache, partial

import torch
from torch import Tensor

from lorapool.worker.kernels import llvm
from lorapool.worker.kernels.llvm import Kernel, arguments, compiled, side_by_side
from lorapool.worker.kernels.memory import DTYPES, Ints
from lorapool.worker.kernels.program import Program
from lorapool.worker.kernels.values import Condition, Int


def serves(new: Tensor, store: Tensor) -> bool:
    """Whether the kernel writes rows of this kind to such a store."""
    return new.device.type == "cpu" and new.dtype in DTYPES and new.dtype == store.dtype and llvm.at_hand()


def places(rows: list[tuple[int, int]]) -> Tensor:
    """What the kernel needs of each row: its row in the batch, and the line of its first head in the cache."""
    return torch.tensor(rows, dtype=torch.int64).view(-1, 2)


def write(key: Tensor, value: Tensor, listed: Tensor, keys: Tensor, values: Tensor) -> None:
    """Write the listed rows of ``key`` and ``value`` [rows, kv_heads, dim] to ``keys`` and ``values`` [blocks, cache
    rows, kv_heads, block, dim], where a row's next head lies ``block`` lines further."""
    heads, block = keys.shape[2], keys.shape[3]
    kernel = _kernel(key.dtype)
    for new, store in ((side_by_side(key), keys), (side_by_side(value), values)):
        kernel(
            arguments(
                new.data_ptr(), new.stride(0), new.stride(1), store.data_ptr(), heads, block, new.shape[2],
                listed.data_ptr(), listed.shape[0],
            )
        )  # fmt: skip


@cache
def _kernel(dtype: torch.dtype) -> Kernel:
    return compiled(partial(_emit, dtype), 9)


def _emit(dtype: torch.dtype, program: Program) -> None:
    """An item is a row, all its heads."""
    new_address, row_stride, head_stride, store_address, heads, block, dim, listed_address, count = program.arguments
    new, store, listed = program.floats(new_address, dtype), program.floats(store_address, dtype), Ints(listed_address)

    def copy(source: Int, target: Int, at: Int, mask: Condition | None) -> None:
        store.store(target + at, new.load(source + at, mask), mask)

    with program.items(count) as item:
        row, line = listed[item * 2], listed[item * 2 + 1]
        with program.loop(0, heads) as head:
            source, target = row * row_stride + head * head_stride, (line + head * block) * dim
            program.vectors(0, dim, partial(copy, source, target))
