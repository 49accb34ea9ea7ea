"""The rivals that the fairness run measures affinity against."""

from __future__ import annotations

from benchmarks.fairness.worker import at_random, by_arrival
from lorapool.shared.queue.protocol import View, WaitingAdapter
from lorapool.worker.loop.affinity import Choice, Holding, Homes, Policy

SEEN = View(9_000, tuple(WaitingAdapter(ref, at, 5, 0.0) for ref, at in (("b@1", 2), ("a@1", 1), ("c@1", 3))), None, 3)
NOBODY = Homes([])


def test_the_oldest_that_fits_goes_first() -> None:
    """Order of arrival takes one job of the longest waiting adapter; with no slot left, of one that runs."""
    assert Choice(("a@1",), 1, 1) == by_arrival(SEEN, Holding(2), 4, Policy(), "w", NOBODY)
    assert Choice(("c@1",), 1, 1) == by_arrival(SEEN, Holding(1, held={"c@1": 2}), 4, Policy(), "w", NOBODY)
    assert Choice() == by_arrival(SEEN, Holding(1, held={"x@1": 2}), 4, Policy(), "w", NOBODY)
    assert Choice() == by_arrival(SEEN, Holding(2), 0, Policy(), "w", NOBODY)


def test_random_takes_any_that_fits() -> None:
    """Over many draws each adapter that fits is drawn, one job at a time, and none that does not fit."""
    drawn = {at_random(SEEN, Holding(2), 4, Policy(), "w", NOBODY).preferences for _ in range(200)}
    assert {("a@1",), ("b@1",), ("c@1",)} == drawn
    assert Choice(("b@1",), 1, 1) == at_random(SEEN, Holding(1, held={"b@1": 1}), 4, Policy(), "w", NOBODY)
