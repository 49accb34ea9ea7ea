"""What the affinity policy prefers, seen from plain views."""

from __future__ import annotations

import random
from collections import Counter

import pytest

from lorapool.shared.broker import View, WaitingAdapter
from lorapool.worker.affinity import Choice, Holding, Homes, Policy, choose

NOW = 1_000_000
ALONE = Homes(["w1"])


def waiting(ref: str, *, since_s: float = 1.0, served: float = 0.0, depth: int = 10) -> WaitingAdapter:
    at = NOW - round(since_s * 1000)
    return WaitingAdapter(ref=ref, since_ms=at, oldest_ms=at, depth=depth, served=served)


def view(*items: WaitingAdapter) -> View:
    return View(now_ms=NOW, waiting=items, next_due_ms=None, ready_count=len(items))


def prefer(
    seen: View, holding: Holding, *, rows: int = 8, policy: Policy | None = None, homes: Homes = ALONE
) -> tuple[str, ...]:
    return choose(seen, holding, rows, policy or Policy(), "w1", homes).preferences


def test_resident_before_newcomers_least_served_first() -> None:
    """Adapters on the device come before those that would need a load, the least served of them first."""
    seen = view(waiting("new@1", since_s=9), waiting("b@1", served=5), waiting("a@1", served=7))
    holding = Holding(slots=3, resident=frozenset({"a@1", "b@1"}))
    assert prefer(seen, holding) == ("b@1", "a@1", "new@1")


def test_overdue_first() -> None:
    """An adapter that waited longer than the bound comes before resident ones."""
    seen = view(waiting("a@1"), waiting("late@1", since_s=11), waiting("later@1", since_s=12))
    holding = Holding(slots=3, resident=frozenset({"a@1"}))
    assert prefer(seen, holding) == ("later@1", "late@1", "a@1")


def test_overdue_waits_for_its_turn() -> None:
    """When it is not the turn of overdue adapters, residents keep their place."""
    seen = view(waiting("a@1"), waiting("late@1", since_s=11))
    holding = Holding(slots=3, resident=frozenset({"a@1"}), overdue_turn=False)
    assert prefer(seen, holding) == ("a@1", "late@1")


def test_no_more_adapters_than_slots() -> None:
    """Adapters that no slot can take soon are not claimed; those we hold already, and base rows, are."""
    seen = view(waiting("a@1"), waiting("b@1", since_s=3), waiting("c@1", since_s=2), waiting("_base", since_s=0.1))
    holding = Holding(slots=2, resident=frozenset({"a@1"}), held={"a@1": 4})
    assert prefer(seen, holding) == ("_base", "a@1", "b@1")


def test_full_slots_leave_others_waiting() -> None:
    """With every slot in use by a running job and no backlog for those, nothing is claimed."""
    seen = view(waiting("c@1"))
    holding = Holding(slots=1, resident=frozenset({"a@1"}), held={"a@1": 1})
    assert choose(seen, holding, 8, Policy(), "w1", ALONE) == Choice()


def test_idle_resident_gives_way() -> None:
    """A resident adapter without running jobs does not keep a newcomer out."""
    seen = view(waiting("c@1"))
    assert prefer(seen, Holding(slots=1, resident=frozenset({"a@1"}))) == ("c@1",)


def test_overdue_drains_a_slot() -> None:
    """When all slots are in use and an adapter is overdue, the adapter nearest to done gets no more work."""
    seen = view(waiting("a@1", since_s=0), waiting("b@1", since_s=0), waiting("late@1", since_s=11))
    holding = Holding(slots=2, resident=frozenset({"a@1", "b@1"}), held={"a@1": 3, "b@1": 1})
    assert prefer(seen, holding) == ("a@1",)


def test_homes_before_strangers() -> None:
    """Among newcomers, those whose home is this worker come first, the longest waiting of them first."""
    homes = Homes(["w1", "w2"])
    refs = [f"x{n}@1" for n in range(12)]
    seen = view(*(waiting(ref, since_s=n) for n, ref in enumerate(refs)))
    ours = [ref for ref in reversed(refs) if homes.home(ref) == "w1"]
    theirs = [ref for ref in reversed(refs) if homes.home(ref) == "w2"]
    assert ours
    assert theirs
    assert prefer(seen, Holding(slots=12), policy=Policy(starvation_ms=60_000), homes=homes) == (*ours, *theirs)


def test_rows_are_shared_among_the_chosen() -> None:
    """One deep backlog does not take all free rows when several adapters can run."""
    seen = view(waiting("a@1", depth=100), waiting("b@1", depth=100))
    choice = choose(seen, Holding(slots=2), 9, Policy(), "w1", ALONE)
    assert (9, 5) == (choice.jobs, choice.per_adapter)


def test_nothing_without_free_rows() -> None:
    """A full worker chooses nothing."""
    assert choose(view(waiting("a@1")), Holding(slots=1), 0, Policy(), "w1", ALONE) == Choice()


def test_arrival_takes_the_oldest_only() -> None:
    """Order of arrival takes one job, of whichever adapter waits longest, resident or not."""
    seen = view(waiting("a@1", since_s=1), waiting("old@1", since_s=2))
    holding = Holding(slots=2, resident=frozenset({"a@1"}))
    assert Choice(("old@1",), jobs=1, per_adapter=1) == choose(seen, holding, 8, Policy("arrival"), "w1", ALONE)


def test_arrival_waits_for_a_slot() -> None:
    """Order of arrival does not overtake the oldest job when its adapter has to wait for a slot."""
    seen = view(waiting("a@1", since_s=1), waiting("old@1", since_s=2))
    holding = Holding(slots=1, resident=frozenset({"a@1"}), held={"a@1": 1})
    assert Choice() == choose(seen, holding, 8, Policy("arrival"), "w1", ALONE)


def test_leaving_worker_moves_only_its_adapters() -> None:
    """When a worker leaves, adapters at home elsewhere stay where they are; load spreads evenly."""
    refs = [f"a{n}@1" for n in range(2_000)]
    before, after = Homes(["w1", "w2", "w3", "w4"]), Homes(["w1", "w2", "w3"])
    assert all(before.home(ref) == after.home(ref) for ref in refs if before.home(ref) != "w4")
    assert all(400 <= count <= 600 for count in Counter(before.home(ref) for ref in refs).values())


@pytest.mark.parametrize("policy", [Policy(), Policy("arrival")])
def test_never_more_adapters_than_slots_in_random_views(policy: Policy) -> None:
    """Whatever is seen and held, held and chosen adapters together fit the slots."""
    seed = random.SystemRandom().randrange(2**32)
    print("seed", seed)
    draw = random.Random(seed)
    for _ in range(500):
        refs = [f"a{n}@1" for n in range(draw.randint(1, 12))]
        slots = draw.randint(1, 6)
        held = {ref: draw.randint(1, 5) for ref in draw.sample(refs, min(len(refs), draw.randint(0, slots)))}
        seen = view(*(waiting(ref, since_s=draw.uniform(0, 20), served=draw.random()) for ref in refs))
        holding = Holding(slots, frozenset(draw.sample(refs, draw.randint(0, len(refs)))), held, draw.random() < 0.5)
        choice = choose(seen, holding, draw.randint(1, 40), policy, "w1", Homes(["w1", "w2"]))
        assert len(set(held) | set(choice.preferences)) <= slots
