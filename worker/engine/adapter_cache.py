"""AdapterCache: brings adapters from disk to host memory to device slots, and decides who has to leave.

Knows which sequences use which slot only by count. Loads run on a background thread; slots change in ``poll`` alone,
between two steps. An adapter in use, pinned, or just brought for someone is not evicted; one in use that keeps others
waiting for too long is drained: it takes no new users. Knows no tensors: loader and slot store are handed in.
"""

from __future__ import annotations

import time
from collections import Counter, OrderedDict
from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, Executor, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from lorapool.shared.errors import AdapterConflict, AdapterUnavailable, InvalidRequest, UnknownAdapter
from lorapool.worker.engine.adapter_source import AdapterSource
from lorapool.worker.engine.port import Residency

STALE_POLLS = 16  # a wish not repeated for so many polls is given up: its sequence has gone
PATIENCE_S = 2.0  # after waiting so long for a slot, one in use is drained
FAILURE_S = 10.0  # a failed load is remembered so long, then tried again when asked for


class HostWeights(Protocol):
    """A loaded adapter in host memory; what else it is, loader and slot store agree on."""

    @property
    def nbytes(self) -> int: ...


class SlotStore(Protocol):
    """The device side: slots 1 to ``slots``. ``write`` replaces what was there; ``clear`` frees it."""

    @property
    def slots(self) -> int: ...
    @property
    def occupied(self) -> frozenset[int]: ...
    def write(self, slot: int, weights: Any) -> None: ...
    def clear(self, slot: int) -> None: ...


Bringing = Callable[[Literal["read", "placed"], str | None], None]
"""Told which adapter is read (on the loading thread) or placed into a slot from now on, and None once it is."""

Loader = Callable[[AdapterSource], HostWeights]
"""Reads and checks an adapter, its digest too; called on the loading thread; raises what ``failure`` hands on."""


@dataclass(slots=True)
class _Wish:
    """Someone wants this adapter in a slot: since when, and at which poll they last said so."""

    since_s: float
    poll: int


@dataclass(frozen=True, slots=True)
class _Failure:
    error: Exception
    at_s: float


class AdapterCache:
    """Driven by one thread, as the engine is; only the loader runs elsewhere.

    ``host_bytes`` bounds the weights kept in host memory, apart from the one that is being read. The device holds a
    copy of its own, so that an adapter may be resident there and not in host memory.
    """

    def __init__(
        self,
        store: SlotStore,
        load: Loader,
        host_bytes: int,
        executor: Executor | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._store, self._load, self._host_bytes, self._clock = store, load, host_bytes, clock
        self.bringing: Bringing = lambda *_: None
        self._executor = executor or ThreadPoolExecutor(1, thread_name_prefix="adapter-loader")
        self._sources: dict[str, AdapterSource] = {}
        self._loading: dict[str, Future[HostWeights]] = {}
        self._host: OrderedDict[str, HostWeights] = OrderedDict()  # least recently used first
        self._slots: OrderedDict[str, int] = OrderedDict()  # least recently used first
        self._free = list(range(store.slots, 0, -1))
        self._users: Counter[str] = Counter()
        self._pinned: set[str] = set()
        self._wishes: dict[str, _Wish] = {}  # first come first served
        self._failures: dict[str, _Failure] = {}
        self._draining: str | None = None
        self._draining_since_s = 0.0
        self._polls = self._largest_bytes = 0
        self.loaded: Counter[str] = Counter()  # how often each went into a slot
        self.evictions = self.disk_loads = self.hits = self.misses = self.failures = 0

    @property
    def loads(self) -> int:
        """Copies into device slots."""
        return self.loaded.total()

    # Asking -----------------------------------------------------------------------------------------------------------

    def know(self, source: AdapterSource) -> None:
        """Learn where an adapter comes from. A ref is immutable: another digest raises AdapterConflict."""
        known = self._sources.setdefault(source.ref, source)
        if known.digest != source.digest:
            raise AdapterConflict(f"{source.ref} has digest {source.digest}, here it is known with {known.digest}")
        self._sources[source.ref] = source  # the same content may lie elsewhere by now

    def acquire(self, ref: str) -> int | None:
        """Take a reference on the slot of ``ref``; None while it is on its way there (ask again after ``poll``)."""
        if ref in self._slots and ref != self._draining:
            self._slots.move_to_end(ref)
            self._users[ref] += 1
            self.hits += ref not in self._wishes
            self._wishes.pop(ref, None)
            return self._slots[ref]
        self._wish(ref)
        return None

    def release(self, ref: str) -> None:
        """Give one reference back; the slot stays until somebody needs it."""
        assert self._users[ref] > 0, f"{ref} released more often than acquired"
        self._users[ref] -= 1

    def failure(self, ref: str) -> Exception | None:
        """Why ``ref`` cannot be had: unknown, or its last load failed (forgotten after FAILURE_S, and then retried)."""
        if ref not in self._sources:
            return UnknownAdapter(f"adapter {ref} is not known to this worker")
        failed = self._failures.get(ref)
        if failed is None:
            return None
        if self._clock() - failed.at_s < FAILURE_S:
            return failed.error
        del self._failures[ref]
        return None

    def overstaying(self, turn_s: float) -> str | None:
        """The adapter that has been drained for ``turn_s`` and is still in use while others wait for its slot."""
        ref = self._draining
        waited = self._clock() - self._draining_since_s >= turn_s
        return ref if ref is not None and waited and self._users[ref] else None

    def pin(self, ref: str) -> None:
        """Bring ``ref`` to the device and keep it there. One slot always stays unpinned, for all the others."""
        if ref not in self._sources:
            raise UnknownAdapter(f"adapter {ref} is not known to this worker")
        if len(self._pinned | {ref}) >= self._store.slots:
            raise InvalidRequest(
                f"cannot pin {ref}: {len(self._pinned)} of {self._store.slots} slots are pinned and one must stay free "
                f"to change; raise --slots or unpin {', '.join(sorted(self._pinned)) or 'nothing'}"
            )
        self._pinned.add(ref)

    def unpin(self, ref: str) -> None:
        """Let ``ref`` be evicted like any other."""
        self._pinned.discard(ref)

    def forget(self, ref: str) -> bool:
        """Unload ``ref`` from device and host and drop what is known of it; False, and nothing, while it is in use."""
        if self._users[ref]:
            return False
        if ref in self._slots:
            self._evict(ref)
        if ref in self._loading:
            self._loading[ref].cancel()
        for held in (self._host, self._wishes, self._loading, self._failures, self._sources, self._users):
            held.pop(ref, None)
        self._pinned.discard(ref)
        return True

    def residency(self) -> Residency:
        """Where each adapter is now."""
        device = frozenset(self._slots)
        return Residency(device, frozenset(self._loading).union(self._wishes) - device, frozenset(self._host))

    # Moving -----------------------------------------------------------------------------------------------------------

    def poll(self) -> None:
        """Between steps: take in finished loads, start new ones, copy into slots. Never waits for a load."""
        self._polls += 1
        self._renew_wishes()
        self._finish_loads()
        self._start_loads()
        self._fill_slots()

    def wait(self, timeout_s: float) -> bool:
        """With nothing else to do: wait until a load has finished; False if none did or none is under way."""
        return bool(wait(list(self._loading.values()), timeout_s, FIRST_COMPLETED).done)

    def close(self) -> None:
        """Stop loading."""
        self._executor.shutdown(wait=False, cancel_futures=True)

    def _wish(self, ref: str) -> None:
        if self.failure(ref) is not None:
            return
        self.misses += ref not in self._wishes
        wish = self._wishes.setdefault(ref, _Wish(self._clock(), self._polls))
        wish.poll = self._polls

    def _renew_wishes(self) -> None:
        for ref in self._pinned - self._slots.keys():
            self._wish(ref)
        for ref in [ref for ref, wish in self._wishes.items() if self._is_over(ref, wish)]:
            del self._wishes[ref]
        if self._draining is not None and not self._wishes.keys() - {self._draining}:
            self._draining = None

    def _is_over(self, ref: str, wish: _Wish) -> bool:
        """Nobody repeats it, or it was the pin's, which keeps its slot without it."""
        return self._polls - wish.poll > STALE_POLLS or (ref in self._pinned and ref in self._slots)

    def _finish_loads(self) -> None:
        for ref in [ref for ref, future in self._loading.items() if future.done()]:
            future = self._loading.pop(ref)
            error = future.exception()
            if error is None:
                self._keep(ref, future.result())
            else:
                self._fail(ref, error)

    def _keep(self, ref: str, weights: HostWeights) -> None:
        self.disk_loads += 1
        if weights.nbytes > self._host_bytes:
            size = f"{ref} takes {weights.nbytes:,} bytes, the host cache {self._host_bytes:,}"
            self._fail(ref, AdapterUnavailable(f"{size}: raise --host-cache-bytes"))
            return
        self._largest_bytes = max(self._largest_bytes, weights.nbytes)
        self._host[ref] = weights
        self._shrink_host()

    def _shrink_host(self) -> None:
        """Back under the budget: first what nobody waits for, least recently used first, then the latest wishes."""
        unwanted = [ref for ref in self._host if ref not in self._wishes]
        wanted = [ref for ref in reversed(self._wishes) if ref in self._host]
        excess = self._bytes(list(self._host)) - self._host_bytes
        for ref in unwanted + wanted:
            if excess <= 0:
                return
            excess -= self._host.pop(ref).nbytes

    def _start_loads(self) -> None:
        """Load for the first who wait: as many as there are slots, and as host memory should have room for."""
        waiting = [ref for ref in self._wishes if ref not in self._slots][: self._store.slots]
        room = self._host_bytes - self._bytes([ref for ref in waiting if ref in self._host])
        room -= self._largest_bytes * len(self._loading)
        for place, ref in enumerate(waiting):
            if ref in self._host or ref in self._loading:
                continue
            if place and room < self._largest_bytes:
                return
            room -= self._largest_bytes
            self._loading[ref] = self._executor.submit(self._read, self._sources[ref])

    def _read(self, source: AdapterSource) -> HostWeights:
        """On the loading thread."""
        self.bringing("read", source.ref)
        try:
            return self._load(source)
        finally:
            self.bringing("read", None)

    def _fill_slots(self) -> None:
        """Copy what is loaded and waited for: all of it when nothing runs, else one, so that a step is not held up."""
        for ref in list(self._wishes):
            if ref in self._slots or ref not in self._host:
                continue
            slot = self._take_slot()
            if slot is None:
                self._consider_draining(self._wishes[ref])
                return
            self._write(ref, slot)
            if self._users.total():
                return

    def _write(self, ref: str, slot: int) -> None:
        self.bringing("placed", ref)
        try:
            self._store.write(slot, self._host[ref])
        except Exception as error:  # noqa: BLE001  a store may fail in any way (device memory); the others go on
            self._store.clear(slot)
            self._free.append(slot)
            self._fail(ref, error)
            return
        finally:
            self.bringing("placed", None)
        self.loaded[ref] += 1
        self._slots[ref] = slot
        self._host.move_to_end(ref)

    def _take_slot(self) -> int | None:
        if not self._free:
            idle = (ref for ref in self._slots if self._evictable(ref))
            victim = next(idle, None)
            if victim is None:
                return None
            self._evict(victim)
        return self._free.pop()

    def _evictable(self, ref: str) -> bool:
        wanted = ref in self._wishes and ref != self._draining
        return not self._users[ref] and ref not in self._pinned and not wanted

    def _evict(self, ref: str) -> None:
        slot = self._slots.pop(ref)
        self._store.clear(slot)
        self._free.append(slot)
        self.evictions += 1
        if ref == self._draining:
            self._draining = None

    def _consider_draining(self, wish: _Wish) -> None:
        """Who waits for long gets the slot with the fewest users, once those have finished."""
        if self._draining is None and self._clock() - wish.since_s >= PATIENCE_S:
            busy = [ref for ref in self._slots if self._users[ref] and ref not in self._pinned]
            self._draining = min(busy, key=lambda ref: self._users[ref], default=None)
            self._draining_since_s = self._clock()

    def _fail(self, ref: str, error: BaseException) -> None:
        self.failures += 1
        self._wishes.pop(ref, None)
        cause = error if isinstance(error, Exception) else RuntimeError(repr(error))
        self._failures[ref] = _Failure(cause, self._clock())

    def _bytes(self, refs: list[str]) -> int:
        return sum(self._host[ref].nbytes for ref in refs)

    # Auditing ---------------------------------------------------------------------------------------------------------

    def check_integrity(self) -> None:
        """Raise AssertionError unless slots, references, wishes and bytes agree."""
        used = sorted([*self._slots.values(), *self._free])
        assert used == list(range(1, self._store.slots + 1)), f"slots {self._slots}, free {self._free}"
        written = frozenset(self._slots.values())
        assert written == self._store.occupied, f"the device holds {self._store.occupied}, known are {self._slots}"
        held = {ref for ref, count in self._users.items() if count}
        assert held <= self._slots.keys(), f"in use and not in a slot: {held - self._slots.keys()}"
        assert all(count >= 0 for count in self._users.values()), f"references {self._users}"
        kept = self._bytes(list(self._host))
        assert kept <= self._host_bytes, f"{kept} bytes in host memory, the budget is {self._host_bytes}"
        assert not self._loading.keys() & self._host.keys(), "loading what is loaded"
        assert len(self._pinned) <= self._store.slots - 1, f"pinned {self._pinned} of {self._store.slots} slots"
        assert self._draining is None or self._draining in self._slots, f"draining {self._draining}, which has no slot"
        assert not self._wishes.keys() & self._failures.keys(), "waiting for what has failed"
        known = self._sources.keys()
        assert self._slots.keys() | self._host.keys() | self._loading.keys() <= known, "holding what is not known"
