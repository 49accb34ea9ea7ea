"""Whose rows and blocks of the KV cache are whose: the books, apart from the tensors.

A row holds one sequence's keys and values, reserved for its longest outcome before it starts. Rows of one capacity (a
power of two, or the whole context) form a group, cut into blocks of positions; rows in use are kept dense at the front
of their group, so that a step reads blocks as they lie. References keep a row after its sequence has gone. Knows counts
and names, and no torch: whoever owns the tensors carries out what is decided here.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass, field
from hashlib import blake2b

LEAST_CAPACITY = 64  # tokens; also the least block
MOST_BLOCKS = 8  # a row: every block costs a step two products a layer where no kernel serves


@dataclass(slots=True, eq=False)
class Row:
    """A row in use: ``written`` tokens of ``seq_id``, held ``references`` times."""

    seq_id: str
    written: int = 0
    references: int = 1


@dataclass(slots=True, eq=False)
class RowGroup:
    """Rows of one capacity: ``allocated`` of them, the first ``len(used)`` in use."""

    capacity: int
    allocated: int = 0
    used: list[Row] = field(default_factory=list)

    @property
    def block(self) -> int:
        """Positions in a block."""
        return max(LEAST_CAPACITY, -(-self.capacity // MOST_BLOCKS))

    @property
    def row_tokens(self) -> int:
        """Positions that a row takes: its capacity in whole blocks."""
        return self.blocks(self.capacity) * self.block

    def blocks(self, tokens: int) -> int:
        """Blocks that hold the first ``tokens`` positions."""
        return -(-tokens // self.block)

    def line(self, row: int, position: int, heads: int) -> int:
        """Where a position's first head lies among [blocks, rows, heads, block] lines; the next head lies ``block``
        lines further."""
        block, place = divmod(position, self.block)
        return (block * self.allocated + row) * heads * self.block + place

    def wrote(self, row: int, end: int) -> None:
        """Note that a row now holds the positions below ``end``."""
        self.used[row].written = max(self.used[row].written, end)


@dataclass(frozen=True, slots=True, eq=False)
class Resize:
    """A group is to have so many rows, those in use kept."""

    group: RowGroup
    rows: int


@dataclass(frozen=True, slots=True, eq=False)
class Vacated:
    """Row ``row`` is free; where ``last`` differs, the ``blocks`` written of that row are to move into its place."""

    group: RowGroup
    row: int
    last: int
    blocks: int


class BlockPool:
    """All groups, under a budget of tokens."""

    def __init__(self, max_tokens: int, budget_tokens: int) -> None:
        self.max_tokens, self.budget_tokens = max_tokens, budget_tokens
        self._groups: dict[int, RowGroup] = {}
        self._places: dict[str, tuple[RowGroup, int]] = {}

    @property
    def allocated_tokens(self) -> int:
        """Positions of all rows that are allocated, in use or not."""
        return sum(group.allocated * group.row_tokens for group in self._groups.values())

    @property
    def holders(self) -> frozenset[str]:
        """The sequences whose rows are in use."""
        return frozenset(self._places)

    def place(self, seq_id: str) -> tuple[RowGroup, int]:
        """A sequence's group and row; valid until the next release."""
        return self._places[seq_id]

    def growth(self, tokens: int) -> list[Resize]:
        """What must be resized before ``reserve`` can give a row of so many tokens; none if one is free. Idle rows of
        other groups are given up where the budget is spent."""
        group = self._group(tokens)
        if len(group.used) < group.allocated:
            return []
        wanted, free = max(2 * group.allocated, 4), self.budget_tokens - self.allocated_tokens
        rows = min(wanted, group.allocated + free // group.row_tokens)
        if rows > group.allocated:
            return [Resize(group, rows)]
        idle = [other for other in self._groups.values() if len(other.used) < other.allocated]
        free += sum((other.allocated - len(other.used)) * other.row_tokens for other in idle)
        rows = min(wanted, group.allocated + free // group.row_tokens)
        trimmed = [Resize(other, len(other.used)) for other in idle]
        return [*trimmed, Resize(group, rows)] if rows > group.allocated else trimmed

    def resized(self, resize: Resize) -> None:
        """The tensors have so many rows now."""
        assert resize.rows >= len(resize.group.used), "rows in use were given up"
        resize.group.allocated = resize.rows

    def reserve(self, seq_id: str, tokens: int) -> bool:
        """Give a sequence a free row of at least ``tokens``; False if there is none."""
        assert seq_id not in self._places, f"{seq_id} holds a row already"
        group = self._group(tokens)
        if len(group.used) == group.allocated:
            return False
        self._places[seq_id] = (group, len(group.used))
        group.used.append(Row(seq_id))
        return True

    def retain(self, seq_id: str) -> None:
        """One more reference: the row stays until each is released."""
        group, row = self._places[seq_id]
        group.used[row].references += 1

    def release(self, seq_id: str) -> Vacated | None:
        """Give up one reference; with the last one the row is vacated."""
        group, row = self._places[seq_id]
        group.used[row].references -= 1
        if group.used[row].references:
            return None
        del self._places[seq_id]
        last = group.used.pop()
        vacated = Vacated(group, row, len(group.used), group.blocks(last.written))
        if row < len(group.used):
            group.used[row] = last
            self._places[last.seq_id] = (group, row)
        return vacated

    def check_integrity(self) -> None:
        """Raise AssertionError unless places, rows and allocations agree."""
        owned = {row.seq_id: (group, at) for group in self._groups.values() for at, row in enumerate(group.used)}
        assert owned == self._places, "places and rows differ"
        assert sum(len(group.used) for group in self._groups.values()) == len(owned), "a sequence owns two rows"
        assert self.allocated_tokens <= self.budget_tokens, f"{self.allocated_tokens} of {self.budget_tokens} tokens"
        for group in self._groups.values():
            assert len(group.used) <= group.allocated, f"the group of {group.capacity} is overfull"
            assert all(row.references > 0 and row.written <= group.row_tokens for row in group.used), "a row is off"

    def _group(self, tokens: int) -> RowGroup:
        assert tokens <= self.max_tokens, f"{tokens} tokens wanted, the longest row has {self.max_tokens}"
        capacity = LEAST_CAPACITY
        while capacity < tokens:
            capacity *= 2
        capacity = min(capacity, self.max_tokens)
        return self._groups.setdefault(capacity, RowGroup(capacity))


def prefix_keys(salt: bytes, ids: Sequence[int], block: int) -> list[bytes]:
    """A key for each whole block of a prompt: a chain, in which a key stands for all tokens up to its block's end.

    ``salt`` names what else the keys and values depend on: base model, dtype, adapter.
    """
    keys: list[bytes] = []
    key = blake2b(salt, digest_size=16).digest()
    for start in range(0, len(ids) - block + 1, block):
        key = blake2b(key + struct.pack(f"<{block}q", *ids[start : start + block]), digest_size=16).digest()
        keys.append(key)
    return keys
