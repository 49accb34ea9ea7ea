"""KvCache: the tensors keep what was written while the books move rows, under a budget."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lorapool.worker.native.kv_cache import KvCache, LayerShape

SHAPE = (LayerShape(1, 2, 2), LayerShape(2, 2, 4))


def _cache(tokens: int = 4096) -> KvCache:
    budget = tokens * sum(shape.width for shape in SHAPE) * 4
    return KvCache(SHAPE, max_tokens=300, budget_bytes=budget, dtype=torch.float32)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 7), st.integers(1, 300)), max_size=40))
def test_a_rows_content_stays_its_own(moves: list[tuple[int, int]]) -> None:
    """Reserve and release in any order, growing and compacting: every held row keeps what was written to it."""
    cache, held = _cache(3000), dict[str, int]()
    for number, tokens in moves:
        seq_id = str(number)
        if seq_id in held:
            cache.release(seq_id)
            del held[seq_id]
        elif cache.reserve(seq_id, tokens):
            held[seq_id] = tokens
            tensors, row = cache.place(seq_id)
            tensors.group.wrote(row, tokens)
            for tensor in tensors.every():
                tensor[: tensors.group.blocks(tokens), row] = float(number * 1000 + tokens)
        cache.check_integrity()
        for other, size in held.items():
            tensors, row = cache.place(other)
            assert all(bool((tensors.row(t, row, size) == int(other) * 1000 + size).all()) for t in tensors.every())


def test_the_budget_is_kept_and_idle_memory_given_up() -> None:
    """What idle rows of one group hold is given to another when the budget is spent."""
    cache = _cache(tokens=640)
    for index in range(10):
        assert cache.reserve(str(index), 64)
    assert not cache.reserve("more", 64)
    for index in range(10):
        cache.release(str(index))
    assert cache.reserve("long", 300)
    cache.check_integrity()


def test_a_short_row_is_not_in_a_long_rows_group() -> None:
    """Groups are by capacity: the long row does not lengthen the short one's."""
    cache = _cache()
    cache.reserve("short", 20)
    cache.reserve("long", 290)
    assert cache.place("short")[0].group.capacity == 64
    assert cache.place("long")[0].group.capacity == 300


def test_a_budget_too_small_for_one_row_is_refused() -> None:
    """It would make that row wait for ever."""
    with pytest.raises(ValueError, match="room for one sequence of max_model_len 300"):
        KvCache(SHAPE, max_tokens=300, budget_bytes=100, dtype=torch.float32)


def test_a_wiped_row_leaves_no_bad_number_behind() -> None:
    """After NaN in a row and a release with wipe, the storage is finite."""
    cache = _cache()
    cache.reserve("a", 10)
    tensors, row = cache.place("a")
    tensors.values[0][:, row] = float("nan")
    cache.release("a", wipe=True)
    assert all(bool(tensor.isfinite().all()) for tensor in tensors.every())


@pytest.mark.parametrize("fails_at", [1, 2, 3, 4])
def test_want_of_memory_in_the_middle_of_growing_changes_nothing(
    monkeypatch: pytest.MonkeyPatch, fails_at: int
) -> None:
    """Whichever tensor finds none: rows keep their content and their place, and growing succeeds later."""
    cache = _cache()
    for index in range(4):
        assert cache.reserve(str(index), 60)
    tensors, row = cache.place("3")
    for tensor in tensors.every():
        tensor[:, row] = 7.0
    made, zeros = [0], torch.zeros

    def scarce(*sizes: int, **options: object) -> torch.Tensor:
        made[0] += 1
        if made[0] == fails_at:
            raise RuntimeError("CUDA out of memory. Tried to allocate 1 TiB")
        return zeros(*sizes, **options)  # type: ignore[call-overload,no-any-return]

    monkeypatch.setattr(torch, "zeros", scarce)
    with pytest.raises(RuntimeError, match="out of memory"):
        cache.reserve("4", 60)
    cache.check_integrity()
    assert cache.owners == {"0", "1", "2", "3"}
    assert cache.reserve("4", 60)
    cache.check_integrity()
    tensors, row = cache.place("3")
    assert all(bool((tensor[:, row] == 7.0).all()) for tensor in tensors.every())
