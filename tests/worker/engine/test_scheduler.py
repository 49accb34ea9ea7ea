"""Scheduler: who is in the next step."""

from __future__ import annotations

import pytest

from lorapool.worker.engine.scheduler import Scheduler
from tests.worker.tiny import sequence


def _started(scheduler: Scheduler, *prompts: int) -> None:
    for index, length in enumerate(prompts):
        row = sequence(str(index), [1] * length)
        scheduler.add(row)
        scheduler.start(row)


def _counts(scheduler: Scheduler) -> dict[str, int]:
    batch = scheduler.next_batch()
    assert batch is not None
    return {work.sequence.seq_id: work.count for work in batch.works}


def test_prompts_share_the_token_budget_first_come_first_served() -> None:
    """The first prompt takes what it needs, the next the rest, the third waits."""
    scheduler = Scheduler(max_batch=8, prefill_tokens=10)
    _started(scheduler, 7, 6, 5)
    assert _counts(scheduler) == {"0": 7, "1": 3}


def test_the_oldest_newcomer_brings_those_of_its_adapter_along() -> None:
    """A chunk holds few adapters, and yet the oldest prompt is always in it, and the next oldest's adapter is next."""
    scheduler = Scheduler(max_batch=8, prefill_tokens=10)
    _started(scheduler, 4, 4, 4, 4)
    for row, slot in zip(scheduler.running, (2, 1, 2, 3), strict=True):
        row.slot = slot
    assert _counts(scheduler) == {"0": 4, "2": 4, "1": 2}


def test_decoding_goes_on_beside_a_long_prompt() -> None:
    """A row that has its first token is in every step, whatever the budget."""
    scheduler = Scheduler(max_batch=8, prefill_tokens=4)
    _started(scheduler, 2, 100)
    row = scheduler.running[0]
    row.computed = 2
    row.append(5)
    assert _counts(scheduler) == {"0": 1, "1": 4}


def test_nothing_running_is_no_batch() -> None:
    """Waiting rows alone make no step."""
    scheduler = Scheduler()
    scheduler.add(sequence("a", [1]))
    assert scheduler.next_batch() is None


def test_rows_are_bounded() -> None:
    """``room`` counts down to zero, and starting beyond is refused."""
    scheduler = Scheduler(max_batch=1)
    _started(scheduler, 1)
    assert scheduler.room == 0
    late = sequence("late", [1])
    scheduler.add(late)
    with pytest.raises(AssertionError, match="no room"):
        scheduler.start(late)


def test_a_removed_sequence_is_gone_from_either_list() -> None:
    """Removing works for waiting and running ones, once."""
    scheduler = Scheduler(max_batch=1)
    _started(scheduler, 1)
    scheduler.add(sequence("w", [1]))
    assert scheduler.remove("w") is not None
    assert scheduler.remove("0") is not None
    assert scheduler.remove("0") is None
    assert len(scheduler) == 0


def test_impossible_limits_are_refused() -> None:
    """At least one row and one token."""
    with pytest.raises(ValueError, match="at least 1"):
        Scheduler(max_batch=0)


def test_rows_that_did_not_fit_are_halved_and_never_grow_by_it() -> None:
    """A larger step that fails after a smaller one has failed takes nothing back; one row is always left."""
    scheduler = Scheduler(max_batch=8, prefill_tokens=64)
    assert scheduler.shrink(8)
    assert scheduler.shrink(2)
    assert not scheduler.shrink(8)  # 16 tokens: no shorter pieces
    assert 1 == scheduler.room
    _started(scheduler, 100)
    assert 0 == scheduler.room
    assert {"0": 16} == _counts(scheduler)


def test_more_rows_than_may_run_are_the_last_that_started() -> None:
    """``excess`` names them, and there is no room meanwhile."""
    scheduler = Scheduler(max_batch=4)
    _started(scheduler, 1, 1, 1)
    scheduler.shrink(2)
    assert ["1", "2"] == [row.seq_id for row in scheduler.excess()]
    assert 0 == scheduler.room
