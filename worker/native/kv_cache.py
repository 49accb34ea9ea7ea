"""Keys and values of running sequences, in rows grouped by length.

A lane holds rows of one capacity (a power of two, or the whole context): one long row does not make attention slower
for the short ones. A lane's storage is cut into blocks of positions, and rows in use are kept dense at its front, so
that a decode step reads the blocks it needs as they lie and gathers nothing. A row is reserved for a sequence's longest
outcome before it starts. Knows nothing of attention or adapters.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import torch
from torch import Tensor

_LEAST_CAPACITY = 64  # tokens; also the least block
_MOST_BLOCKS = 8  # a lane: every block costs a step two products a layer


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
class Lane:
    """Rows of one capacity. ``keys[layer]`` is [blocks, rows, heads, block, dim]; rows 0 to len(owners) are in use."""

    capacity: int
    keys: list[Tensor] = field(default_factory=list)
    values: list[Tensor] = field(default_factory=list)
    owners: list[str] = field(default_factory=list)
    lengths: list[int] = field(default_factory=list)  # tokens written, per row in use

    @property
    def rows(self) -> int:
        return self.keys[0].shape[1] if self.keys else 0

    @property
    def block(self) -> int:
        """Positions in a block."""
        return max(_LEAST_CAPACITY, -(-self.capacity // _MOST_BLOCKS))

    @property
    def row_tokens(self) -> int:
        """Positions that a row takes: its capacity in whole blocks."""
        return self.blocks(self.capacity) * self.block

    def blocks(self, tokens: int) -> int:
        """Blocks that hold the first ``tokens`` positions."""
        return -(-tokens // self.block)

    def line(self, row: int, position: int, heads: int) -> int:
        """Where the first head of a position lies in the storage seen as [lines, dim]; the next head lies ``block``
        lines further."""
        block, place = divmod(position, self.block)
        return (block * self.rows + row) * heads * self.block + place

    def row(self, tensor: Tensor, row: int, tokens: int) -> Tensor:
        """[heads, tokens, dim]: the beginning of one row, gathered."""
        blocks = tensor[: self.blocks(tokens), row].transpose(0, 1)
        return blocks.reshape(blocks.shape[0], -1, blocks.shape[-1])[:, :tokens]

    def tensors(self) -> Iterator[Tensor]:
        yield from self.keys
        yield from self.values

    def resize(self, rows: int, layers: tuple[LayerShape, ...], dtype: torch.dtype, device: torch.device) -> None:
        """Reallocate to ``rows``, keeping those in use. Zeros, not garbage: a masked NaN would still spread."""

        def moved(old: list[Tensor], shapes: list[tuple[int, int]]) -> list[Tensor]:
            blocks, used = self.blocks(self.capacity), len(self.owners)
            new = [torch.zeros(blocks, rows, h, self.block, d, dtype=dtype, device=device) for h, d in shapes]
            for index, tensor in enumerate(old):
                new[index][:, :used] = tensor[:, :used]
            return new

        keys = moved(self.keys, [(layer.heads, layer.key_dim) for layer in layers])
        values = moved(self.values, [(layer.heads, layer.value_dim) for layer in layers])
        self.keys, self.values = keys, values  # both or, for want of memory, none

    def pop(self, row: int, wipe: bool) -> str | None:
        """Free a row; the last one moves into its place. Return the owner that moved, if any."""
        last = len(self.owners) - 1
        written = self.blocks(self.lengths[last])
        for tensor in self.tensors():
            if wipe:
                tensor[:, row].zero_()
            if row != last:
                tensor[:written, row] = tensor[:written, last]
        moved = self.owners[last] if row != last else None
        self.owners[row], self.lengths[row] = self.owners[last], self.lengths[last]
        self.owners.pop()
        self.lengths.pop()
        return moved


class KvCache:
    """All lanes, under a budget of bytes.

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
        self.max_tokens, self.budget_bytes = max_tokens, budget_bytes
        if Lane(max_tokens).row_tokens * self.token_bytes > budget_bytes:
            raise ValueError(
                f"KV cache of {budget_bytes} bytes holds {budget_bytes // self.token_bytes} tokens: "
                f"expected room for one sequence of max_model_len {max_tokens}; give more or lower max_model_len"
            )
        self._lanes: dict[int, Lane] = {}
        self._places: dict[str, tuple[Lane, int]] = {}

    @property
    def used_bytes(self) -> int:
        """Bytes of all rows that are allocated, in use or not."""
        return sum(lane.rows * lane.row_tokens for lane in self._lanes.values()) * self.token_bytes

    @property
    def owners(self) -> frozenset[str]:
        """The sequences that hold a row."""
        return frozenset(self._places)

    def place(self, seq_id: str) -> tuple[Lane, int]:
        """Return a sequence's lane and row; valid until the next release."""
        return self._places[seq_id]

    def reserve(self, seq_id: str, tokens: int) -> bool:
        """Give a sequence a row of at least ``tokens``; False if the budget has none now."""
        assert seq_id not in self._places, f"{seq_id} holds a row already"
        assert tokens <= self.max_tokens, f"{seq_id} wants {tokens} tokens, the longest row has {self.max_tokens}"
        lane = self._lane(tokens)
        if len(lane.owners) == lane.rows and not self._grow(lane):
            return False
        self._places[seq_id] = (lane, len(lane.owners))
        lane.owners.append(seq_id)
        lane.lengths.append(0)
        return True

    def release(self, seq_id: str, *, wipe: bool = False) -> None:
        """Free a row. ``wipe`` zeroes it: needed after non-finite values, which masking does not stop."""
        lane, row = self._places.pop(seq_id)
        moved = lane.pop(row, wipe)
        if moved is not None:
            self._places[moved] = (lane, row)

    def check_integrity(self) -> None:
        """Raise AssertionError unless places, owners and allocations agree."""
        owned = [(owner, lane, row) for lane in self._lanes.values() for row, owner in enumerate(lane.owners)]
        assert {owner: (lane, row) for owner, lane, row in owned} == self._places, "places and owners differ"
        assert len(owned) == len(self._places), "a sequence owns two rows"
        assert self.used_bytes <= self.budget_bytes, f"{self.used_bytes} bytes of {self.budget_bytes}"
        for lane in self._lanes.values():
            assert len(lane.owners) == len(lane.lengths) <= max(lane.rows, 0), f"lane {lane.capacity} overfull"

    def _lane(self, tokens: int) -> Lane:
        capacity = _LEAST_CAPACITY
        while capacity < tokens:
            capacity *= 2
        capacity = min(capacity, self.max_tokens)
        return self._lanes.setdefault(capacity, Lane(capacity))

    def _grow(self, lane: Lane) -> bool:
        wanted = max(2 * lane.rows, 4)
        rows = min(wanted, self._affordable(lane))
        if rows <= lane.rows:
            self._trim()
            rows = min(wanted, self._affordable(lane))
        if rows <= lane.rows:
            return False
        lane.resize(rows, self._layers, self._dtype, self._device)
        return True

    def _affordable(self, lane: Lane) -> int:
        """Rows the lane could have in all."""
        free = self.budget_bytes - self.used_bytes
        return lane.rows + free // (lane.row_tokens * self.token_bytes)

    def _trim(self) -> None:
        """Give back rows that nobody uses, in every lane."""
        for lane in self._lanes.values():
            if len(lane.owners) < lane.rows:
                lane.resize(len(lane.owners), self._layers, self._dtype, self._device)
