"""StepBoard: what can be read of a writer that is dead or hangs."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator

import pytest

from lorapool.worker.engine_process.step_board import MOST_ROWS, StepBoard


@pytest.fixture
def boards() -> Iterator[tuple[StepBoard, StepBoard]]:
    """The writer's and the reader's view of one page."""
    fd = StepBoard.make()
    writer, reader = StepBoard(fd), StepBoard(fd)
    os.close(fd)
    yield writer, reader
    writer.close()
    reader.close()


Boards = tuple[StepBoard, StepBoard]
REFS = {"a": "x@1", "b": "y@1", "c": "base"}


def test_an_empty_board_says_nothing(boards: Boards) -> None:
    """No age, nobody busy."""
    _, reader = boards
    assert (0, 0.0, False, frozenset()) == (
        reader.passed_ns(),
        reader.age_s(),
        reader.is_busy(),
        reader.busy_with(REFS),
    )


def test_age_begins_anew_at_each_boundary(boards: Boards) -> None:
    """At the beginning of a step too: a step that was tried again by halves gets on."""
    writer, reader = boards
    writer.passed()
    time.sleep(0.05)
    aged = reader.age_s()
    assert 0.05 <= aged < 30
    before = reader.passed_ns()
    writer.enter(["a"])
    assert before < reader.passed_ns()


def test_the_rows_of_a_step_are_those_that_entered_last(boards: Boards) -> None:
    """Until the next boundary, when nobody is in it."""
    writer, reader = boards
    writer.enter(["a", "b", "elsewhere"])
    assert frozenset({"a", "b"}) == reader.busy_with(REFS)
    writer.enter(iter(["c"]))
    assert frozenset({"c"}) == reader.busy_with(REFS)
    assert reader.is_busy()
    writer.passed()
    assert not reader.is_busy()
    assert frozenset() == reader.busy_with(REFS)


def test_an_adapter_on_its_way_is_told_until_it_is_there(boards: Boards) -> None:
    """Read on one thread, placed on another, beside the step of others."""
    writer, reader = boards
    writer.bring("read", "x@1")
    assert frozenset({"a"}) == reader.busy_with(REFS)
    writer.bring("placed", "y@1")
    writer.enter(["c"])
    assert frozenset(REFS) == reader.busy_with(REFS)
    writer.bring("read", None)
    writer.passed()
    assert frozenset({"b"}) == reader.busy_with(REFS)
    writer.bring("placed", None)
    assert not reader.is_busy()


@pytest.mark.parametrize("rows", [MOST_ROWS, MOST_ROWS + 1])
def test_a_step_of_more_rows_than_fit_may_have_had_anyone(boards: Boards, rows: int) -> None:
    """Rather too many blamed than the wrong ones."""
    writer, reader = boards
    inside = {str(number): "base" for number in range(rows)}
    writer.enter(inside)
    blamed = reader.busy_with({**inside, "waits": "base"})
    assert len(blamed) == rows + (rows > MOST_ROWS)
    writer.passed()
    assert frozenset() == reader.busy_with(inside)
