"""What the affinity policy prefers, seen from plain views."""

from __future__ import annotations

import random
from collections import Counter

import pytest

from lorapool.shared.queue.protocol import View, WaitingAdapter
from lorapool.worker.loop.affinity import OVER_QUOTA_MS, Choice, Holding, Homes, Policy, choose, guess

NOW = 1_000_000
ALONE = Homes(["w1"])


def waiting(ref: str, *, since_s: float = 1.0, served: float = 0.0, depth: int = 10) -> WaitingAdapter:
    at = NOW - round(since_s * 1000)
    return WaitingAdapter(ref=ref, since_ms=at, depth=depth, served=served)


def view(*items: WaitingAdapter) -> View:
    return View(now_ms=NOW, waiting=items, next_due_ms=None, ready_count=len(items))


def prefer(
    seen: View, holding: Holding, *, rows: int = 8, policy: Policy | None = None, homes: Homes = ALONE
) -> tuple[str, ...]:
    return choose(seen, holding, rows, policy or Policy(), "w1", homes).preferences


def test_resident_before_newcomers_least_served_first() -> None:
    """Adapters on the device come before those that would need a load, the least served of them first."""
    seen = view(waiting("new@1", since_s=1.2), waiting("b@1", served=5), waiting("a@1", served=7))
    holding = Holding(slots=3, resident=frozenset({"a@1", "b@1"}))
    assert prefer(seen, holding) == ("b@1", "a@1", "new@1")


def test_long_waits_come_before_the_lead() -> None:
    """An adapter that is not here comes first once it has waited longer by more than the lead of those that are."""
    seen = view(waiting("a@1"), waiting("late@1", since_s=11), waiting("later@1", since_s=12))
    holding = Holding(slots=3, resident=frozenset({"a@1"}))
    assert ("later@1", "late@1", "a@1") == prefer(seen, holding)


@pytest.mark.parametrize(("resident_s", "first"), [(91, "a@1"), (89, "late@1")])
def test_the_lead_ends_at_the_starvation_bound(resident_s: float, first: str) -> None:
    """However long the longest wait, nobody is overtaken by a job that came later by more than the bound."""
    seen = view(waiting("a@1", since_s=resident_s), waiting("late@1", since_s=100))
    holding = Holding(slots=3, resident=frozenset({"a@1"}))
    assert first == prefer(seen, holding, policy=Policy(starvation_ms=10_000))[0]


def test_who_had_more_than_its_share_gives_way() -> None:
    """Of two adapters in the same place, the one that was served far more comes later, unless it waits much longer."""
    often, seldom = waiting("often@1", since_s=10, served=9_000), waiting("seldom@1", since_s=9)
    assert ("seldom@1", "often@1") == prefer(view(often, seldom), Holding(slots=2))
    assert ("often@1", "seldom@1") == prefer(view(often, waiting("seldom@1", since_s=7)), Holding(slots=2))
    assert ("often@1", "seldom@1") == prefer(view(waiting("often@1", since_s=10, served=900), seldom), Holding(slots=2))


def test_no_more_adapters_than_slots() -> None:
    """Adapters that no slot can take soon are not claimed; those we hold already, and base rows, are."""
    seen = view(
        waiting("a@1", since_s=2), waiting("b@1", since_s=3), waiting("c@1", since_s=2), waiting("_base", since_s=2.9)
    )
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
    """Among adapters that are nowhere near, one at home elsewhere is loaded here only after a longer wait."""
    homes = Homes(["w1", "w2"])
    ours = next(ref for ref in map("x{}@1".format, range(99)) if homes.home(ref) == "w1")
    theirs = next(ref for ref in map("x{}@1".format, range(99)) if homes.home(ref) == "w2")
    assert (ours,) == prefer(view(waiting(ours, since_s=9), waiting(theirs, since_s=10)), Holding(2), homes=homes)
    assert (theirs,) == prefer(view(waiting(ours, since_s=5), waiting(theirs, since_s=10)), Holding(2), homes=homes)


@pytest.mark.parametrize(("busy", "patience_ms"), [(0, 0), (4, 63), (6, 211), (7, 335)])
def test_the_fuller_a_worker_the_longer_it_leaves_newcomers(busy: int, patience_ms: int) -> None:
    """A worker takes an adapter that it would have to load only once that has waited: with the third power of the rows
    in use, up to half a second. One without others beside it takes it at once."""
    held = {"a@1": busy} if busy else {}
    two, holding = Homes(["w1", "w2"]), Holding(slots=4, resident=frozenset({"a@1"}), held=held)
    for waited_ms, expected in ((patience_ms - 1, ()), (patience_ms, ("new@1",))):
        seen = view(waiting("new@1", since_s=waited_ms / 1000))
        assert waited_ms < 0 or expected == prefer(seen, holding, rows=8 - busy, homes=two)
        assert waited_ms < 0 or ("new@1",) == prefer(seen, holding, rows=8 - busy, homes=ALONE)


def test_one_load_at_a_time() -> None:
    """A worker takes one newcomer, the first, and while that is loaded leaves others alone for half a second."""
    others = Homes(["w2", "w3"])
    seen = view(waiting("new@1", since_s=0.3), waiting("newer@1", since_s=0.2), waiting("a@1", since_s=0.1))
    holding = Holding(slots=4, resident=frozenset({"a@1"}))
    assert ("a@1", "new@1") == prefer(seen, holding, homes=others)
    loading = Holding(slots=4, resident=frozenset({"a@1"}), loads=True)
    assert ("a@1",) == prefer(seen, loading, homes=others)
    assert ("late@1",) == prefer(view(waiting("late@1", since_s=0.5)), loading, homes=others)


def test_a_crowd_leaves_a_row_in_eight() -> None:
    """Jobs whose turn has not come do not take the last rows while others are about; when it has, or alone, they do."""
    over = view(waiting("a@1", since_s=-2))
    busy = Holding(slots=4, resident=frozenset({"a@1"}), held={"b@1": 14})
    assert Choice(("a@1",), jobs=1, per_adapter=1) == choose(over, busy, 3, Policy(), "w1", ALONE)
    assert Choice() == choose(over, busy, 2, Policy(), "w1", ALONE)
    assert ("a@1",) == prefer(view(waiting("a@1", since_s=0)), busy, rows=2)
    assert ("a@1",) == prefer(over, Holding(slots=4, resident=frozenset({"a@1"}), held={"a@1": 14}), rows=2)


def test_a_crowd_is_loaded_elsewhere_too() -> None:
    """Where there is room, jobs whose turn has not come are newcomers like others: by when they came."""
    two = Homes(["w1", "w2"])
    assert ("a@1",) == prefer(view(waiting("a@1", since_s=-OVER_QUOTA_MS / 1000 + 0.1)), Holding(slots=4), homes=two)


def test_a_guess_names_what_is_here() -> None:
    """Unseen, a worker asks for what it has: the adapters whose slots are theirs or can be, and the base model."""
    holding = Holding(slots=2, resident=frozenset({"a@1", "b@1", "c@1"}), held={"c@1": 1})
    assert Choice(("_base", "a@1", "c@1"), jobs=5) == guess(holding, 5, Policy())
    assert Choice() == guess(holding, 0, Policy())
    assert Choice() == guess(holding, 5, Policy("arrival"))


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
        holding = Holding(slots, frozenset(draw.sample(refs, draw.randint(0, len(refs)))), held)
        rows = draw.randint(1, 40)
        for choice in (choose(seen, holding, rows, policy, "w1", Homes(["w1", "w2"])), guess(holding, rows, policy)):
            assert len((set(held) | set(choice.preferences)) - {"_base"}) <= slots
