"""Which adapters a worker should claim next: a pure function of what it sees and what it holds.

Knows the claim policies and rendezvous homes. Knows no Redis, no engine, no clock: the view carries the server's
time. Order of arrival, bent: an adapter that is here counts as older than it is, by a lead that grows with the longest
wait up to the starvation bound; one that has had more than its share, or is at home elsewhere, counts as younger.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from hashlib import blake2b

from lorapool.shared.job import BASE_REF
from lorapool.shared.queue.protocol import View, WaitingAdapter
from lorapool.shared.server.terms import Terms
from lorapool.worker.config import PolicyKind

FAIR_TOKENS = 4096  # served so much beyond the least served, an adapter has had more than its share
MOST_GUESSED = 64  # adapters named in a claim made unseen
OVER_QUOTA_MS = Terms().over_quota_ms
ROWS_TO_RESERVED = 8  # one in so many of a worker's rows stays free of jobs that one agent sent beyond its share
_64_BITS = (1 << 64) - 1


@dataclass(frozen=True, slots=True)
class Policy:
    """``arrival`` goes by order alone: the adapter whose job waits longest, one job at a time; affinity is measured
    against it. The defaults were chosen by ``python -m benchmarks.simulation``."""

    kind: PolicyKind = "affinity"
    starvation_ms: int = 10_000  # nobody is overtaken, for an adapter's being here, by a job that came so much later
    lead_share: float = 0.4  # of the longest wait: the lead of adapters that are here
    least_lead_ms: int = 500  # about what a load costs
    yield_share: float = 0.2  # of the longest wait: what adapters served beyond their share give way
    non_home_penalty: float = 0.3  # of the lead: what adapters at home elsewhere wait before they are loaded here
    patience_ms: int = 500  # for so long, at most, newcomers are left to workers that have them, or more room
    claim_size: int = 32  # jobs, at most, in one claim


@dataclass(frozen=True, slots=True)
class Holding:
    """What this worker has on its device and in its hands."""

    slots: int
    resident: frozenset[str] = frozenset()  # refs in a device slot, or on their way into one
    held: Mapping[str, int] = field(default_factory=dict)  # ref -> unfinished jobs of ours
    loads: bool = False  # an adapter is on its way to the device, and others would wait behind it

    def open_slots(self) -> int:
        """Slots that no unfinished job of ours needs."""
        return max(0, self.slots - sum(1 for ref in self.held if ref != BASE_REF))

    def fits(self, ref: str) -> bool:
        """Whether a job of this adapter would find its slot taken care of without freeing another's."""
        return ref == BASE_REF or ref in self.held


@dataclass(frozen=True, slots=True)
class Choice:
    """What to ask of ``WorkerQueue.claim``."""

    preferences: tuple[str, ...] = ()
    jobs: int = 0  # at most so many in all
    per_adapter: int | None = None  # at most so many from one


class Homes:
    """Rendezvous hashing over the live workers: each adapter has one home; a leaving worker moves only its own."""

    def __init__(self, workers: Iterable[str]) -> None:
        self.workers = tuple(sorted(set(workers)))
        self._hashes = [_hash(worker) for worker in self.workers]
        self._homes: dict[str, str] = {}

    def home(self, ref: str) -> str | None:
        """The worker with the highest score for ``ref`` (Thaler and Ravishankar 1998), or None without workers.

        A score is worker's hash × adapter's, modulo 2^64: by an odd factor, so that no two workers share one; a
        thousand of them take a quarter of a millisecond, once an adapter.
        """
        if ref not in self._homes:
            if not self.workers:
                return None
            factor = _hash(ref) | 1
            scores = [hashed * factor & _64_BITS for hashed in self._hashes]
            self._homes[ref] = self.workers[scores.index(max(scores))]
        return self._homes[ref]


def _hash(name: str) -> int:
    return int.from_bytes(blake2b(name.encode(), digest_size=8).digest())


def choose(view: View, holding: Holding, free_rows: int, policy: Policy, worker: str, homes: Homes) -> Choice:
    """Order the claimable adapters for one claim; an empty choice means: nothing here that could run soon."""
    if free_rows <= 0 or not view.waiting:
        return Choice()
    if policy.kind == "arrival":
        return _choose_by_arrival(view, holding)
    reserved = _reserved(view, holding, free_rows)
    ordered = _ordered(view, holding, free_rows, policy, worker, homes, over_quota=free_rows > reserved)
    if not ordered:
        return Choice()
    yielding = _yields_slot(ordered[0], holding)
    fitting = _within_slots((ref for ref in ordered if ref != yielding), holding)
    if not fitting:
        return Choice()
    over_quota = any(item.since_ms > view.now_ms and item.ref in fitting for item in view.waiting)
    jobs = min(free_rows - (reserved if over_quota else 0), policy.claim_size)
    return Choice(tuple(fitting), jobs, per_adapter=-(-jobs // len(fitting)))


def guess(holding: Holding, free_rows: int, policy: Policy) -> Choice:
    """What to claim unseen, when a moment ago nothing waited: whatever comes of the adapters that are here."""
    if free_rows <= 0 or policy.kind == "arrival":
        return Choice()
    refs = _within_slots(sorted(holding.resident | holding.held.keys() | {BASE_REF})[:MOST_GUESSED], holding)
    return Choice(tuple(refs), min(free_rows, policy.claim_size))


def _choose_by_arrival(view: View, holding: Holding) -> Choice:
    oldest = min(view.waiting, key=lambda item: (item.since_ms, item.ref))
    if holding.fits(oldest.ref) or holding.open_slots() > 0:
        return Choice((oldest.ref,), jobs=1, per_adapter=1)
    return Choice()


def _reserved(view: View, holding: Holding, free_rows: int) -> int:
    """Rows that stay free of jobs over quota, whose turn has not come (trunk reservation): none while nobody else is
    here.

    A few suffice for others to find a row where their adapter is; jobs over quota have the rest, or wait for their
    turn.
    """
    refs = holding.held.keys() | {item.ref for item in view.waiting}
    return (free_rows + sum(holding.held.values())) // ROWS_TO_RESERVED if len(refs) > 1 else 0


def _ordered(
    view: View, holding: Holding, free_rows: int, policy: Policy, worker: str, homes: Homes, *, over_quota: bool
) -> list[str]:
    """Those that wait, by when their next job came, each bent by what is said of leads above; of newcomers, one."""
    longest_ms = max(0, view.now_ms - min([item.since_ms for item in view.waiting]))
    lead_ms = min(policy.starvation_ms, policy.least_lead_ms + policy.lead_share * longest_ms)
    fair = min([item.served for item in view.waiting]) + FAIR_TOKENS
    here = holding.resident | holding.held.keys() | {BASE_REF}

    def counts_from_ms(item: WaitingAdapter) -> float:
        from_ms = item.since_ms + (policy.yield_share * longest_ms if item.served > fair else 0.0)
        if item.ref in here:
            return from_ms - lead_ms
        at_home = homes.home(item.ref) in {worker, None}
        return from_ms if at_home else from_ms + policy.non_home_penalty * lead_ms

    def order(item: WaitingAdapter) -> tuple[float, float, str]:
        return counts_from_ms(item), item.served, item.ref

    alone = len(homes.workers) < 2
    patience_ms = 0.0 if alone else _patience_ms(holding, free_rows, policy)
    mine, newcomers = _parted(view, here, patience_ms, over_quota=over_quota)
    if newcomers and not alone:
        newcomers = [min(newcomers, key=order)]
    return [item.ref for item in sorted(mine + newcomers, key=order)]


def _parted(
    view: View, here: AbstractSet[str], patience_ms: float, *, over_quota: bool
) -> tuple[list[WaitingAdapter], list[WaitingAdapter]]:
    """Those that are here, and the newcomers that have waited out our patience; without ``over_quota`` only those
    whose turn has come."""
    mine, newcomers = [], []
    for item in view.waiting:
        waited_ms = view.now_ms - item.since_ms
        if waited_ms < 0:  # over its agent's quota: its turn has not come, but it came long ago
            waited_ms += OVER_QUOTA_MS
            if not over_quota:
                continue
        if item.ref in here:
            mine.append(item)
        elif waited_ms >= patience_ms:
            newcomers.append(item)
    return mine, newcomers


def _patience_ms(holding: Holding, free_rows: int, policy: Policy) -> float:
    """How long newcomers are left to others: all the patience while one loads, for loads go one after another; else
    the fuller this worker, the longer."""
    busy = sum(holding.held.values())
    return policy.patience_ms * (1.0 if holding.loads else (busy / (busy + free_rows)) ** 3)


def _yields_slot(first: str, holding: Holding) -> str | None:
    """The held adapter to feed no longer, so that its slot falls free for the one that comes first; None if that fits.

    Fewest unfinished jobs first: it drains soonest, and it stays the choice while it drains.
    """
    if holding.open_slots() > 0 or holding.fits(first):
        return None
    held = [ref for ref in holding.held if ref != BASE_REF]
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
