"""Keys and values of running sequences: the tensors behind the block pool's rows.

A group's storage is [blocks, rows, heads, block, dim] a layer: a decode step reads the blocks it needs as they lie and
gathers nothing. Whose row is whose, and when storage grows, the block pool decides. Knows nothing of attention or
adapters.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import torch
from torch import Tensor

from lorapool.worker.engine.block_pool import BlockPool, Resize, RowGroup


@dataclass(frozen=True, slots=True)
class LayerShape:
    """Key and value heads of one attention layer."""

    heads: int
    key_dim: int
    value_dim: int

    @property
    def width(self) -> int:
        return self.heads * (self.key_dim + self.value_dim)


@dataclass(slots=True, eq=False)
class RowTensors:
    """A group's storage. ``keys[layer]`` is [blocks, rows, heads, block, dim]; rows in use lie at the front."""

    group: RowGroup
    keys: list[Tensor] = field(default_factory=list)
    values: list[Tensor] = field(default_factory=list)

    def row(self, tensor: Tensor, row: int, tokens: int) -> Tensor:
        """[heads, tokens, dim]: the beginning of one row, gathered."""
        blocks = tensor[: self.group.blocks(tokens), row].transpose(0, 1)
        return blocks.reshape(blocks.shape[0], -1, blocks.shape[-1])[:, :tokens]

    def every(self) -> Iterator[Tensor]:
        yield from self.keys
        yield from self.values

    def resize(self, rows: int, layers: tuple[LayerShape, ...], dtype: torch.dtype, device: torch.device) -> None:
        """Reallocate to ``rows``, keeping those in use. Zeros, not garbage: a masked NaN would still spread."""
        group, used = self.group, len(self.group.used)

        def moved(old: list[Tensor], shapes: list[tuple[int, int]]) -> list[Tensor]:
            blocks, block = group.blocks(group.capacity), group.block
            new = [torch.zeros(blocks, rows, h, block, d, dtype=dtype, device=device) for h, d in shapes]
            for index, tensor in enumerate(old):
                new[index][:, :used] = tensor[:, :used]
            return new

        keys = moved(self.keys, [(layer.heads, layer.key_dim) for layer in layers])
        values = moved(self.values, [(layer.heads, layer.value_dim) for layer in layers])
        self.keys, self.values = keys, values  # both or, for want of memory, none


class KvCache:
    """All rows' tensors, under a budget of bytes.

    Raises ValueError if the budget cannot hold one row of ``max_tokens``: such a sequence would wait for ever.
    """

    def __init__(
        self,
        layers: tuple[LayerShape, ...],
        *,
        max_tokens: int,
        budget_bytes: int,
        dtype: torch.dtype,
        device: torch.device | str = "cpu",
    ) -> None:
        self._layers, self._dtype, self._device = layers, dtype, torch.device(device)
        self.token_bytes = sum(layer.width for layer in layers) * dtype.itemsize
        self.pool = BlockPool(max_tokens, budget_bytes // self.token_bytes)
        if RowGroup(max_tokens).row_tokens > self.pool.budget_tokens:
            raise ValueError(
                f"KV cache of {budget_bytes} bytes holds {self.pool.budget_tokens} tokens: "
                f"expected room for one sequence of max_model_len {max_tokens}; give more or lower max_model_len"
            )
        self._tensors: dict[int, RowTensors] = {}  # by capacity

    @property
    def owners(self) -> frozenset[str]:
        """The sequences that hold a row."""
        return self.pool.holders

    def place(self, seq_id: str) -> tuple[RowTensors, int]:
        """Return a sequence's tensors and its row in them; valid until the next release."""
        group, row = self.pool.place(seq_id)
        return self._tensors[group.capacity], row

    def reserve(self, seq_id: str, tokens: int) -> bool:
        """Give a sequence a row of at least ``tokens``; False if the budget has none now."""
        for resize in self.pool.growth(tokens):
            self._resize(resize)
        return self.pool.reserve(seq_id, tokens)

    def release(self, seq_id: str, *, wipe: bool = False) -> None:
        """Give up a row. ``wipe`` zeroes it: needed after non-finite values, which masking does not stop."""
        group, row = self.pool.place(seq_id)
        tensors = self._tensors[group.capacity]
        vacated = self.pool.release(seq_id)
        if vacated is None:
            return
        for tensor in tensors.every():
            if wipe:
                tensor[:, row].zero_()
            if row != vacated.last:
                tensor[: vacated.blocks, row] = tensor[: vacated.blocks, vacated.last]

    def check_integrity(self) -> None:
        """Raise AssertionError unless the tensors are those that the books speak of."""
        self.pool.check_integrity()
        for tensors in self._tensors.values():
            assert all(tensor.shape[1] == tensors.group.allocated for tensor in tensors.every()), "rows are missing"

    def _resize(self, resize: Resize) -> None:
        group = resize.group
        tensors = self._tensors.setdefault(group.capacity, RowTensors(group))
        tensors.resize(resize.rows, self._layers, self._dtype, self._device)
        self.pool.resized(resize)
