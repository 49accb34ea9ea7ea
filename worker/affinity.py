"""Which adapters a worker should claim next: a pure function of what it sees and what it holds.

Knows the claim policies and rendezvous homes. Knows no Redis, no engine, no clock: the view carries the server's
time. Policy of design §4: overdue adapters first on at most a share of the claims, then resident ones by least
served, then (if a slot can be freed) those whose home is here, then the rest by longest wait.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Literal

from lorapool.shared.broker import View, WaitingAdapter
from lorapool.shared.job import BASE_REF

PolicyKind = Literal["affinity", "arrival"]


@dataclass(frozen=True, slots=True)
class Policy:
    """``arrival`` goes by order alone: the adapter passed over longest, one job at a time; affinity is measured
    against it."""

    kind: PolicyKind = "affinity"
    starvation_ms: int = 10_000  # an adapter not claimed for longer is overdue
    claims_per_overdue: int = 2  # at most one claim in this many puts overdue adapters first
    claim_size: int = 32  # jobs, at most, in one claim


@dataclass(frozen=True, slots=True)
class Holding:
    """What this worker has on its device and in its hands."""

    slots: int
    resident: frozenset[str] = frozenset()  # refs in a device slot, or on their way into one
    held: Mapping[str, int] = field(default_factory=dict)  # ref -> unfinished jobs of ours
    overdue_turn: bool = True  # this claim may put overdue adapters first

    def open_slots(self) -> int:
        """Slots that no unfinished job of ours needs."""
        return max(0, self.slots - sum(1 for ref in self.held if ref != BASE_REF))

    def fits(self, ref: str) -> bool:
        """Whether a job of this adapter would find its slot taken care of without freeing another's."""
        return ref == BASE_REF or ref in self.held


@dataclass(frozen=True, slots=True)
class Choice:
    """What to ask of ``Broker.claim``."""

    preferences: tuple[str, ...] = ()
    jobs: int = 0  # at most so many in all
    per_adapter: int | None = None  # at most so many from one
    overdue: frozenset[str] = frozenset()  # those preferred because they waited too long


class Homes:
    """Rendezvous hashing over the live workers: each adapter has one home; a leaving worker moves only its own."""

    def __init__(self, workers: Iterable[str]) -> None:
        self.workers = tuple(sorted(set(workers)))
        self._homes: dict[str, str] = {}

    def home(self, ref: str) -> str | None:
        """The worker with the highest hash for ``ref`` (Thaler and Ravishankar 1998), or None without workers."""
        if ref not in self._homes:
            if not self.workers:
                return None
            self._homes[ref] = max(self.workers, key=lambda worker: _score(worker, ref))
        return self._homes[ref]


def _score(worker: str, ref: str) -> bytes:
    return blake2b(f"{worker}\0{ref}".encode(), digest_size=8).digest()


def choose(view: View, holding: Holding, free_rows: int, policy: Policy, worker: str, homes: Homes) -> Choice:
    """Order the claimable adapters for one claim; an empty choice means: nothing here that could run soon."""
    if free_rows <= 0 or not view.waiting:
        return Choice()
    if policy.kind == "arrival":
        return _choose_by_arrival(view, holding)
    overdue = _overdue(view, holding, policy)
    ordered = _distinct([*overdue, *_resident(view, holding), *_newcomers(view, worker, homes)])
    yielding = _yields_slot(view, holding, overdue)
    fitting = _within_slots([item.ref for item in ordered if item.ref != yielding], holding)
    if not fitting:
        return Choice()
    jobs = min(free_rows, policy.claim_size)
    share = -(-jobs // len(fitting))
    return Choice(tuple(fitting), jobs, share, frozenset(item.ref for item in overdue) & frozenset(fitting))


def _choose_by_arrival(view: View, holding: Holding) -> Choice:
    oldest = min(view.waiting, key=lambda item: (item.oldest_ms, item.ref))
    if holding.fits(oldest.ref) or holding.open_slots() > 0:
        return Choice((oldest.ref,), jobs=1, per_adapter=1)
    return Choice()


def _overdue(view: View, holding: Holding, policy: Policy) -> list[WaitingAdapter]:
    if not holding.overdue_turn:
        return []
    late = [item for item in view.waiting if view.now_ms - item.since_ms > policy.starvation_ms]
    return _longest_wait_first(late)


def _resident(view: View, holding: Holding) -> list[WaitingAdapter]:
    here = holding.resident | holding.held.keys() | {BASE_REF}
    return sorted((item for item in view.waiting if item.ref in here), key=lambda item: (item.served, item.ref))


def _newcomers(view: View, worker: str, homes: Homes) -> list[WaitingAdapter]:
    ordered = _longest_wait_first(view.waiting)
    return sorted(ordered, key=lambda item: homes.home(item.ref) != worker)


def _longest_wait_first(waiting: Iterable[WaitingAdapter]) -> list[WaitingAdapter]:
    return sorted(waiting, key=lambda item: (item.since_ms, item.oldest_ms, item.ref))


def _distinct(waiting: Iterable[WaitingAdapter]) -> list[WaitingAdapter]:
    return list({item.ref: item for item in waiting}.values())


def _yields_slot(view: View, holding: Holding, overdue: Sequence[WaitingAdapter]) -> str | None:
    """The held adapter to feed no longer, so that its slot falls free for an overdue one; None if a slot is open.

    Fewest unfinished jobs first: it drains soonest, and it stays the choice while it drains.
    """
    if holding.open_slots() > 0 or all(holding.fits(item.ref) for item in overdue):
        return None
    late = {item.ref for item in overdue}
    held = [ref for ref in holding.held if ref != BASE_REF and ref not in late]
    return min(held, key=lambda ref: (holding.held[ref], ref), default=None)


def _within_slots(refs: Iterable[str], holding: Holding) -> list[str]:
    """Drop adapters beyond the slots that can be freed now, keeping the order."""
    left, fitting = holding.open_slots(), []
    for ref in refs:
        if holding.fits(ref):
            fitting.append(ref)
        elif left > 0:
            left -= 1
            fitting.append(ref)
    return fitting
