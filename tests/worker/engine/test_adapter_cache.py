"""AdapterCache: who is loaded, who is in a slot, who has to leave."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from lorapool.shared.errors import AdapterConflict, CheckpointError, InvalidRequest, UnknownAdapter
from lorapool.worker.engine.adapter_cache import FAILURE_S, PATIENCE_S, STALE_POLLS, AdapterCache
from lorapool.worker.engine.adapter_source import AdapterSource

REFS = [f"{letter}@1" for letter in "abcdefgh"]


@dataclass(frozen=True)
class Weights:
    ref: str
    nbytes: int


@dataclass
class FakeStore:
    """Slots that remember what is in them, and who told them to forget it."""

    slots: int
    held: dict[int, str] = field(default_factory=dict)
    cleared: list[str] = field(default_factory=list)
    broken: set[str] = field(default_factory=set)

    @property
    def occupied(self) -> frozenset[int]:
        return frozenset(self.held)

    def write(self, slot: int, weights: Any) -> None:
        assert 1 <= slot <= self.slots
        if weights.ref in self.broken:
            raise MemoryError(weights.ref)
        self.held[slot] = weights.ref

    def clear(self, slot: int) -> None:
        if slot in self.held:
            self.cleared.append(self.held.pop(slot))


class ManualExecutor(Executor):
    """Runs what was submitted when told to, one at a time."""

    def __init__(self) -> None:
        self.waiting: list[tuple[Future[Any], Callable[..., Any], Any]] = []

    def submit(self, fn: Callable[..., Any], /, *args: Any, **_: Any) -> Future[Any]:
        future: Future[Any] = Future()
        self.waiting.append((future, fn, args))
        return future

    def finish_one(self) -> bool:
        while self.waiting:
            future, fn, args = self.waiting.pop(0)
            if not future.set_running_or_notify_cancel():
                continue
            try:
                future.set_result(fn(*args))
            except Exception as error:  # noqa: BLE001  as an executor does
                future.set_exception(error)
            return True
        return False


class Bench:
    """A cache whose loads and clock are driven by hand; ``read`` counts what was read from disk."""

    def __init__(self, slots: int = 2, host_bytes: int = 1000, sizes: dict[str, int] | None = None) -> None:
        self.now, self.store, self.executor, self.read = 0.0, FakeStore(slots), ManualExecutor(), Counter[str]()
        self.sizes, self.errors = sizes or dict.fromkeys(REFS, 10), dict[str, Exception]()
        self.cache = AdapterCache(self.store, self.load, host_bytes, self.executor, lambda: self.now)
        for ref in REFS:
            self.cache.know(AdapterSource(ref, f"digest of {ref}", f"file:///{ref}"))

    def load(self, source: AdapterSource) -> Weights:
        self.read[source.ref] += 1
        if source.ref in self.errors:
            raise self.errors[source.ref]
        return Weights(source.ref, self.sizes[source.ref])

    def settle(self) -> None:
        """Poll until nothing is loading any more."""
        self.cache.poll()
        while self.executor.finish_one():
            self.cache.poll()
        self.cache.poll()

    def bring(self, *refs: str) -> list[int | None]:
        """Ask for each in turn until it is there; references are kept."""
        slots = []
        for ref in refs:
            if self.cache.acquire(ref) is None:
                self.settle()
                slots.append(self.cache.acquire(ref))
            else:
                slots.append(self.cache._slots[ref])
        return slots

    def use(self, *refs: str) -> None:
        for ref in refs:
            assert self.bring(ref) != [None], ref
            self.cache.release(ref)


@pytest.fixture
def bench() -> Iterator[Bench]:
    made = Bench()
    yield made
    made.cache.check_integrity()


def test_acquire_is_none_until_loaded_then_a_slot(bench):
    """Disk → host → slot, across polls; slot 0 is never given."""
    a = REFS[0]
    assert bench.cache.acquire(a) is None
    assert a in bench.cache.residency().loading
    bench.cache.poll()
    assert bench.cache.acquire(a) is None
    bench.settle()
    slot = bench.cache.acquire(a)
    assert slot in (1, 2)
    assert a == bench.store.held[slot]
    assert (frozenset({a}), frozenset({a})) == (bench.cache.residency().device, bench.cache.residency().host)


def test_a_load_happens_once_for_all_who_ask(bench):
    """Five sequences that wait for one adapter cause one read."""
    for _ in range(5):
        bench.cache.acquire(REFS[0])
        bench.cache.poll()
    bench.settle()
    assert [1, 1, 1, 1, 1] == [bench.cache.acquire(REFS[0]) and 1 for _ in range(5)]
    assert bench.read == {REFS[0]: 1}


def test_the_least_recently_used_leaves(bench):
    """With two slots, a third adapter takes the place of the one not used for longest."""
    a, b, c = REFS[:3]
    bench.use(a, b, a, c)
    assert [b] == bench.store.cleared
    assert {a, c} == bench.cache.residency().device


def test_evicted_and_asked_for_again_comes_from_host_memory(bench):
    """The second time, no file is read."""
    bench.use(*REFS[:3], *REFS[:3])
    assert set(bench.read.values()) == {1}
    assert bench.cache.loads == 6
    assert bench.cache.evictions == 4


def test_in_use_is_not_evicted(bench):
    """While both slots are in use a third adapter waits; it gets the first slot that is free."""
    a, b, c = REFS[:3]
    bench.bring(a, b)
    assert bench.bring(c) == [None]
    bench.cache.release(a)
    bench.settle()
    assert bench.cache.acquire(c) is not None
    assert [a] == bench.store.cleared


def test_pinned_is_not_evicted(bench):
    """A pinned adapter is brought without being asked for, and stays, used or not."""
    a, b, c, d = REFS[:4]
    bench.cache.pin(a)
    bench.settle()
    bench.use(b, c, d)
    assert {a, d} == bench.cache.residency().device
    bench.cache.unpin(a)
    bench.use(b)
    assert a not in bench.cache.residency().device


def test_one_slot_stays_unpinned(bench):
    """Pinning all slots would lock everybody else out; the message says what to do."""
    bench.cache.pin(REFS[0])
    with pytest.raises(InvalidRequest, match="--slots"):
        bench.cache.pin(REFS[1])


def test_host_memory_stays_within_its_budget():
    """Room for two in host memory: the least recently used goes, and is read again when asked for."""
    bench = Bench(slots=1, host_bytes=25)
    a, b, c = REFS[:3]
    bench.use(a, b, c)
    assert {b, c} == bench.cache.residency().host
    bench.use(a)
    assert bench.read[a] == 2
    bench.cache.check_integrity()


def test_larger_than_host_memory_fails_with_the_flag():
    """An adapter that can never fit is an error, not an endless wait."""
    bench = Bench(host_bytes=5)
    bench.cache.acquire(REFS[0])
    bench.settle()
    assert "--host-cache-bytes" in str(bench.cache.failure(REFS[0]))


def test_a_failed_load_reaches_the_ref_alone_and_is_tried_again_later(bench):
    """The error is given per ref; others go on; after a while the adapter is loaded again."""
    a, b = REFS[:2]
    bench.errors[a] = CheckpointError("changed")
    bench.cache.acquire(a)
    bench.use(b)
    assert bench.errors[a] is bench.cache.failure(a)
    assert bench.cache.failure(b) is None
    bench.errors.clear()
    assert bench.bring(a) == [None]
    bench.now += FAILURE_S
    assert bench.cache.failure(a) is None
    assert bench.bring(a) != [None]
    assert bench.read[a] == 2


def test_a_failed_write_gives_the_slot_back(bench):
    """The device has no memory for one adapter: that one fails, the slot serves others."""
    a, b, c = REFS[:3]
    bench.store.broken.add(a)
    bench.cache.acquire(a)
    bench.settle()
    assert isinstance(bench.cache.failure(a), MemoryError)
    assert None not in bench.bring(b, c)


def test_unknown_is_a_failure_in_words(bench):
    """Asking for what nobody announced is an error per ref, not an exception in the step."""
    assert bench.cache.acquire("nobody@1") is None
    assert isinstance(bench.cache.failure("nobody@1"), UnknownAdapter)


def test_a_ref_never_changes_its_content(bench):
    """The same ref with another digest is a conflict; the same again is fine."""
    bench.cache.know(AdapterSource(REFS[0], f"digest of {REFS[0]}", "file:///elsewhere"))
    with pytest.raises(AdapterConflict):
        bench.cache.know(AdapterSource(REFS[0], "another", "file:///x"))


def test_forgetting_frees_device_and_host(bench):
    """Unloaded means gone from slot and host memory; in use, nothing happens."""
    bench.bring(REFS[0])
    assert not bench.cache.forget(REFS[0])
    bench.cache.release(REFS[0])
    assert bench.cache.forget(REFS[0])
    assert {} == bench.store.held
    assert frozenset() == bench.cache.residency().host


def test_a_forgotten_load_does_not_come_back(bench):
    """What is unloaded while it is read does not appear afterwards."""
    bench.cache.acquire(REFS[0])
    bench.cache.poll()
    assert bench.cache.forget(REFS[0])
    bench.settle()
    assert frozenset() == bench.cache.residency().host


def test_a_busy_adapter_is_drained_for_one_that_waits_too_long(bench):
    """Two adapters that are never idle do not starve a third for longer than the patience plus one sequence."""
    a, b, c = REFS[:3]
    bench.bring(a, a, b)
    assert bench.bring(c) == [None]
    bench.now += PATIENCE_S
    bench.bring(c)
    assert bench.cache.acquire(b) is None, "the one with fewest users takes no new ones"
    assert bench.cache.acquire(a) is not None
    bench.cache.release(b)
    bench.settle()
    assert bench.cache.acquire(c) is not None


def test_a_wish_not_repeated_no_longer_keeps_a_slot(bench):
    """An adapter brought for a sequence that went away can be evicted again."""
    a, b, c, d = REFS[:4]
    bench.cache.acquire(a)
    bench.cache.acquire(b)
    bench.settle()
    for _ in range(STALE_POLLS + 1):
        bench.cache.poll()
    assert None not in bench.bring(c, d)


def test_loading_runs_on_another_thread_and_poll_does_not_wait():
    """The step loop goes on while a file is read."""
    go, threads = threading.Event(), []

    def load(source: AdapterSource) -> Weights:
        threads.append(threading.get_ident())
        assert go.wait(10)
        return Weights(source.ref, 1)

    cache = AdapterCache(FakeStore(1), load, 100)
    cache.know(AdapterSource("a@1", "d", "file:///a"))
    cache.acquire("a@1")
    cache.poll()
    assert not cache.wait(0.01)
    go.set()
    assert cache.wait(10)
    cache.poll()
    assert cache.acquire("a@1") == 1
    assert threading.get_ident() not in threads
    cache.close()


class CacheUnderUse(RuleBasedStateMachine):
    """Sequences arrive, wait, run and leave; loads end in their own time; adapters are pinned and unloaded."""

    @initialize(
        slots=st.integers(1, 4),
        sizes=st.lists(st.integers(1, 10), min_size=len(REFS), max_size=len(REFS)),
        host_bytes=st.integers(10, 60),
    )
    def build(self, slots: int, sizes: list[int], host_bytes: int) -> None:
        self.bench = Bench(slots, host_bytes, dict(zip(REFS, sizes, strict=True)))
        self.cache, self.pinned = self.bench.cache, set[str]()
        self.waiting: list[str] = []
        self.running: list[tuple[str, int]] = []

    @rule(ref=st.sampled_from(REFS))
    def arrive(self, ref: str) -> None:
        self.waiting.append(ref)

    @rule()
    def step(self) -> None:
        self.cache.poll()
        still = []
        for ref in self.waiting:
            slot = self.cache.acquire(ref)
            if slot is None:
                still.append(ref)
            else:
                self.running.append((ref, slot))
        self.waiting = still
        self.bench.now += 0.3

    @rule()
    def end_a_load(self) -> None:
        self.bench.executor.finish_one()

    @precondition(lambda self: self.running)
    @rule(data=st.data())
    def end_a_sequence(self, data: st.DataObject) -> None:
        ref, _ = self.running.pop(data.draw(st.integers(0, len(self.running) - 1)))
        self.cache.release(ref)

    @precondition(lambda self: self.waiting)
    @rule()
    def abort_one(self) -> None:
        self.waiting.pop(0)

    @rule(ref=st.sampled_from(REFS))
    def pin(self, ref: str) -> None:
        if len(self.pinned | {ref}) < self.bench.store.slots:
            self.cache.pin(ref)
            self.pinned.add(ref)

    @precondition(lambda self: self.pinned)
    @rule()
    def unpin(self) -> None:
        self.cache.unpin(self.pinned.pop())

    @invariant()
    def the_books_agree(self) -> None:
        self.cache.check_integrity()
        held = {ref: slot for slot, ref in self.bench.store.held.items()}
        assert held.keys() == self.cache.residency().device
        for ref, slot in self.running:
            assert held.get(ref) == slot, f"{ref} runs on slot {slot}, which holds {self.bench.store.held.get(slot)}"

    @invariant()
    def pinned_adapters_once_there_stay(self) -> None:
        device = self.cache.residency().device
        assert getattr(self, "seen", set()) & self.pinned <= device
        self.seen = set(device)

    def teardown(self) -> None:
        """Whoever still waits gets a slot, when sequences end and loads finish."""
        if not hasattr(self, "bench"):
            return
        for _ in range(20 + 6 * len(self.waiting)):
            while self.bench.executor.finish_one():
                pass
            self.step()
            for ref, _ in self.running:
                self.cache.release(ref)
            self.running.clear()
        assert not self.waiting, f"{self.waiting} never got a slot"
        self.the_books_agree()


CacheUnderUse.TestCase.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
TestCacheUnderUse = CacheUnderUse.TestCase
