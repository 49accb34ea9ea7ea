"""BlockPool: rows, references and the chain of prefixes, without tensors."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lorapool.worker.engine.block_pool import BlockPool, RowGroup, prefix_keys


def _reserve(pool: BlockPool, seq_id: str, tokens: int) -> bool:
    for resize in pool.growth(tokens):
        pool.resized(resize)
        pool.check_integrity()
    return pool.reserve(seq_id, tokens)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 7), st.integers(1, 300), st.booleans()), max_size=60))
def test_rows_stay_dense_and_whose_they_are(moves: list[tuple[int, int, bool]]) -> None:
    """Reserve, retain and release in any order: a mirror that carries out each move agrees with the books."""
    pool, references = BlockPool(300, 3000), dict[str, int]()
    mirror: dict[tuple[RowGroup, int], str] = {}
    for number, tokens, again in moves:
        seq_id = str(number)
        if seq_id in references and again:
            pool.retain(seq_id)
            references[seq_id] += 1
        elif seq_id in references:
            vacated = pool.release(seq_id)
            references[seq_id] -= 1
            assert (vacated is None) == bool(references[seq_id])
            if vacated is not None:
                mirror[vacated.group, vacated.row] = mirror[vacated.group, vacated.last]
                del mirror[vacated.group, vacated.last], references[seq_id]
        elif _reserve(pool, seq_id, tokens):
            references[seq_id] = 1
            mirror[pool.place(seq_id)] = seq_id
        pool.check_integrity()
        assert {place: seq_id for seq_id in references for place in [pool.place(seq_id)]} == mirror
        assert references.keys() == pool.holders


def test_the_last_row_moves_with_what_was_written_of_it() -> None:
    """Only its blocks in use are to be copied; a freed last row moves nothing."""
    pool = BlockPool(1024, 100_000)
    assert all(_reserve(pool, seq_id, 1000) for seq_id in "abc")
    group, row = pool.place("c")
    group.wrote(row, 129)
    group.wrote(row, 3)  # an earlier chunk run again: what is written stays written
    vacated = pool.release("a")
    assert vacated is not None
    assert (0, 2, 2) == (vacated.row, vacated.last, vacated.blocks)
    assert (group, 0) == pool.place("c")
    vacated = pool.release("b")
    assert vacated is not None
    assert vacated.row == vacated.last == 1


def test_what_is_not_resized_gives_no_row() -> None:
    """Where the device had no memory for more rows, the books still say what is there."""
    pool = BlockPool(300, 3000)
    assert pool.growth(50)
    assert not pool.reserve("a", 50)
    pool.check_integrity()


def test_idle_rows_are_given_up_for_others() -> None:
    """A group that cannot grow within the budget takes what other groups do not use; what is used stays."""
    pool = BlockPool(300, 640)
    assert all(_reserve(pool, str(index), 64) for index in range(10))
    assert not _reserve(pool, "more", 64)
    for index in range(6):
        pool.release(str(index))
    assert _reserve(pool, "long", 300)
    assert pool.holders == {"6", "7", "8", "9", "long"}
    assert not _reserve(pool, "another", 300)


def test_growing_keeps_to_the_budget() -> None:
    """Rows double until the budget allows fewer."""
    pool = BlockPool(64, 64 * 9)
    sizes = []
    for index in range(9):
        assert _reserve(pool, str(index), 10)
        sizes.append(pool.place("0")[0].allocated)
    assert [4, 4, 4, 4, 8, 8, 8, 8, 9] == sizes


@pytest.mark.parametrize("capacity", [64, 128, 300, 512, 1000, 8192])
def test_every_position_has_a_line_of_its_own(capacity: int) -> None:
    """Over all rows, positions and heads: no two share a line, and none lies outside."""
    group, heads = RowGroup(capacity, allocated=2), 3
    lines = {
        group.line(row, position, heads) + head * group.block
        for row in range(2)
        for position in range(capacity)
        for head in range(heads)
    }
    assert 2 * capacity * heads == len(lines)
    assert max(lines) < 2 * group.row_tokens * heads
    assert group.blocks(capacity) <= 8


def test_a_prefix_key_stands_for_all_before_it() -> None:
    """Whole blocks only; another token, another salt or another order further up changes every key from there on."""
    ids = list(range(20))
    keys = prefix_keys(b"base", ids, 8)
    assert 2 == len(keys)
    assert keys == prefix_keys(b"base", ids[:16], 8)
    assert keys[0] == prefix_keys(b"base", [*ids[:8], 99, *ids[9:]], 8)[0]
    assert keys[1] != prefix_keys(b"base", [*ids[:8], 99, *ids[9:]], 8)[1]
    assert not set(keys) & set(prefix_keys(b"adapter", ids, 8))
    assert not set(keys) & set(prefix_keys(b"base", [1, 0, *ids[2:]], 8))
    assert [] == prefix_keys(b"base", ids[:7], 8)
