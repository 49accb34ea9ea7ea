"""ContinuousBatch: the native engine's one batch, that sequences join and leave between steps.

Owns the sequences, their adapter references and their KV reservations; asks the scheduler who is next, the runner for
one token a row. Knows no Redis, no torch and no event loop, and is driven by one thread. KV rows are reserved for a
sequence's longest outcome before it starts, so that nothing has to be preempted for want of memory; it is done for the
sake of those who wait: after a turn, rows give their place to whoever waited that long for it, and go on later.

What fails is looked at twice. A row that fails alone while others succeed is to blame; where all fail alone, the
device is asked to compute what needs no row, and if it cannot, nobody is. Want of device memory blames nobody: fewer
rows go on.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator
from collections.abc import Set as AbstractSet
from typing import NamedTuple, Protocol

from lorapool.shared.errors import InvalidRequest
from lorapool.shared.job import BASE_REF
from lorapool.worker.engine.port import EngineCounters, EngineSick, OutOfMemory, Update
from lorapool.worker.engine.scheduler import Scheduler
from lorapool.worker.engine.sequence import Batch, Drawn, Sequence, Status, Work
from lorapool.worker.engine.vocabulary import check_vocabulary

TURN_S = 10.0  # who waited so long for a KV row or a slot gets it from those who run


class Runner(Protocol):
    """What computes a step. ``reserve`` is False while the KV cache has no row of that many tokens to give; ``step``
    raises OutOfMemory where fewer rows may do; ``probe`` raises if the device does not compute as it did at the start.
    """

    max_model_len: int

    @property
    def vocabulary(self) -> int: ...
    @property
    def reserved(self) -> AbstractSet[str]: ...
    def reserve(self, seq_id: str, tokens: int) -> bool: ...
    def release(self, seq_id: str) -> None: ...
    def step(self, batch: Batch) -> list[Drawn]: ...
    def probe(self) -> None: ...
    def check_integrity(self) -> None: ...


class Adapters(Protocol):
    """What brings adapters into device slots. ``acquire`` is None while one is loading or no slot is free."""

    evictions: int

    @property
    def loads(self) -> int: ...
    @property
    def loaded(self) -> Counter[str]: ...
    def acquire(self, ref: str) -> int | None: ...
    def release(self, ref: str) -> None: ...
    def failure(self, ref: str) -> Exception | None: ...
    def overstaying(self, turn_s: float) -> str | None: ...
    def poll(self) -> None: ...
    def check_integrity(self) -> None: ...


class Compiler(Protocol):
    """What gives sequences the matchers of their grammars. ``ready`` is False while one is compiled, and raises what is
    wrong with it."""

    def ready(self, sequence: Sequence) -> bool: ...


class _Failed(NamedTuple):
    """A row that failed alone."""

    sequence: Sequence
    error: Exception


class _Outcome(NamedTuple):
    """Of a step or a part of it. ``moved``: rows that got on, whether or not they drew a token."""

    updates: list[Update]
    failed: list[_Failed]
    moved: int

    def joined(self, other: _Outcome) -> _Outcome:
        return _Outcome(self.updates + other.updates, self.failed + other.failed, self.moved + other.moved)


class ContinuousBatch:
    """``add`` and ``abort`` between calls of ``step``; all from one thread."""

    def __init__(
        self,
        runner: Runner,
        adapters: Adapters,
        scheduler: Scheduler,
        clock: Callable[[], float] = time.monotonic,
        grammars: Compiler | None = None,
    ) -> None:
        self._runner, self._adapters, self._scheduler, self._clock = runner, adapters, scheduler, clock
        self._grammars = grammars
        self.entering: Callable[[Iterator[str]], None] = lambda _: None  # told which sequences are computed next
        self._short: tuple[str, float] | None = None  # who is first in line and finds no KV row, since when
        self._held: set[str] = set()  # sequences that hold a KV row and, unless base, an adapter reference
        self._fresh: set[str] = set()  # of those, the ones that have not drawn a token since they started
        self._counters = EngineCounters()

    @property
    def counters(self) -> EngineCounters:
        if self._counters.adapter_loads != (loads := self._adapters.loads):
            self._counters.adapter_loads, self._counters.loaded = loads, Counter(self._adapters.loaded)
        self._counters.evictions = self._adapters.evictions
        return self._counters

    @property
    def has_work(self) -> bool:
        return len(self._scheduler) > 0

    def add(self, sequence: Sequence) -> None:
        """Queue a sequence. Raises InvalidRequest if its prompt leaves no room for one new token or names a token that
        there is not, or it has a grammar and none is served here."""
        limit, prompt = self._runner.max_model_len, len(sequence.prompt_ids)
        if not prompt or prompt + 1 > limit:
            raise InvalidRequest(
                f"prompt has {prompt} tokens: expected 1 to {limit - 1} (the context is {limit} tokens)"
            )
        check_vocabulary(sequence.prompt_ids, sequence.params, self._runner.vocabulary)
        if sequence.grammar is not None and self._grammars is None:
            raise InvalidRequest("a grammar, for the form of the answer: this engine serves none")
        sequence.max_new_tokens = min(sequence.params.max_new_tokens, limit - prompt)
        self._scheduler.add(sequence)

    def abort(self, seq_id: str) -> bool:
        """Drop a sequence and all that it holds; False if it is not here."""
        sequence = self._scheduler.remove(seq_id)
        if sequence is None:
            return False
        self._release(sequence)
        return True

    def preempt(self, seq_id: str) -> None:
        """Take a running sequence's row and slot; it waits again, its tokens kept, and recomputes its keys and values.

        The tokens to come are the same ones: they depend on nothing but the sequence.
        """
        sequence = self._scheduler.remove(seq_id)
        assert sequence is not None and seq_id in self._held, f"{seq_id} does not run"
        self._give_back(sequence)
        sequence.computed, sequence.status = 0, Status.WAITING
        self._scheduler.add(sequence)
        self._counters.preemptions += 1

    def step(self) -> list[Update]:
        """Admit who can start, compute one step, return what happened to each row that changed."""
        self._end_turns()
        self._adapters.poll()
        updates = self._admit()
        batch = self._scheduler.next_batch()
        if batch is None:
            return updates
        self._count(batch)
        outcome = self._run(batch.works)
        if outcome.failed and not outcome.moved:
            self._probe(outcome.failed)
        failed = [self._fail(row.sequence, row.error) for row in outcome.failed]
        for row in self._scheduler.excess():
            self.preempt(row.seq_id)
        return updates + outcome.updates + failed

    def check_device(self) -> None:
        """Raise EngineSick if the device does not compute as it did when the model was loaded."""
        self._probe([])

    def check_integrity(self) -> None:
        """Raise AssertionError unless sequences, KV rows and adapter references agree."""
        running = {sequence.seq_id for sequence in self._scheduler.running}
        assert running == self._held >= self._fresh, f"running {running} but holding {self._held}"
        reserved = self._runner.reserved
        assert reserved == self._held, f"KV rows of {reserved}, running {running}"
        for sequence in self._scheduler.waiting:
            assert (sequence.slot, sequence.computed) == (0, 0), f"{sequence.seq_id} waits in slot {sequence.slot}"
        for sequence in self._scheduler.running:
            assert (sequence.slot == 0) == (sequence.ref == BASE_REF), f"{sequence.seq_id} in slot {sequence.slot}"
            assert sequence.computed <= sequence.length, f"{sequence.seq_id} computed more than it has"
        self._adapters.check_integrity()
        self._runner.check_integrity()

    def _admit(self) -> list[Update]:
        others, joined, failed = bool(self._scheduler.running), False, []
        short, self._short = self._short, None
        for sequence in self._scheduler.waiting:
            if not self._scheduler.room:
                break
            error, matched = self._matched(sequence)
            if (error := error or self._failure(sequence)) is not None:
                failed.append(self._fail(sequence, error))
            elif not matched:
                continue  # its grammar is compiled
            elif not self._take_slot(sequence):
                sequence.status = Status.LOADING
            elif self._runner.reserve(sequence.seq_id, len(sequence.prompt_ids) + sequence.max_new_tokens):
                self._held.add(sequence.seq_id)
                self._fresh.add(sequence.seq_id)
                self._scheduler.start(sequence)
                joined = True
            elif (starved := self._without_row(sequence, short)) is not None:
                failed.append(starved)
            else:
                break  # first come first served: a long one is not overtaken for ever
        self._counters.joins += joined and others
        return failed

    def _without_row(self, sequence: Sequence, short: tuple[str, float] | None) -> Update | None:
        """It found no KV row: it is first in line for one, or, where none was held for a turn that could be given back,
        fails for want of memory."""
        self._give_slot(sequence)
        now_s = self._clock()
        since_s = short[1] if short is not None and (short[0] == sequence.seq_id or not self._held) else now_s
        if not self._held and now_s - since_s >= TURN_S:
            return self._fail(sequence, OutOfMemory("the device has no memory for its keys and values"))
        self._short = (sequence.seq_id, since_s)
        return None

    def _end_turns(self) -> None:
        """Preempt for who has waited a whole turn: the rows of an adapter whose slot is wanted, or, for a KV row, the
        one that started last. A row that has not drawn since it started is left: everyone gets on in each turn."""
        ref = self._adapters.overstaying(TURN_S)
        rows = [row for row in self._scheduler.running if row.seq_id not in self._fresh]
        if ref is not None:
            for row in [row for row in rows if row.ref == ref]:
                self.preempt(row.seq_id)
        elif self._short is not None and rows and self._clock() - self._short[1] >= TURN_S:
            self.preempt(rows[-1].seq_id)

    def _matched(self, sequence: Sequence) -> tuple[Exception | None, bool]:
        """What is wrong with its grammar, and whether it has the matcher that it needs."""
        try:
            return None, self._grammars is None or self._grammars.ready(sequence)
        except Exception as error:  # noqa: BLE001  of one grammar: the others go on
            return error, False

    def _failure(self, sequence: Sequence) -> Exception | None:
        return None if sequence.ref == BASE_REF else self._adapters.failure(sequence.ref)

    def _take_slot(self, sequence: Sequence) -> bool:
        slot = 0 if sequence.ref == BASE_REF else self._adapters.acquire(sequence.ref)
        sequence.slot = slot or 0
        return slot is not None

    def _give_slot(self, sequence: Sequence) -> None:
        if sequence.ref != BASE_REF:
            self._adapters.release(sequence.ref)
        sequence.slot = 0

    def _release(self, sequence: Sequence) -> None:
        sequence.status = Status.FINISHED
        if sequence.seq_id in self._held:
            self._give_back(sequence)

    def _give_back(self, sequence: Sequence) -> None:
        """Of a sequence that holds them: its KV row and its adapter reference."""
        self._held.remove(sequence.seq_id)
        self._fresh.discard(sequence.seq_id)
        self._runner.release(sequence.seq_id)
        self._give_slot(sequence)

    def _run(self, works: tuple[Work, ...]) -> _Outcome:
        """Compute; when the step fails, again by halves, until the row to blame is alone. Repeating is safe: positions
        are committed after sampling, and a KV entry is only ever rewritten with the same value."""
        self.entering(work.sequence.seq_id for work in works)
        try:
            drawn = self._runner.step(Batch.of(works))
        except Exception as error:  # noqa: BLE001  whatever one row does, the others go on
            self._counters.failed_steps += 1
            return self._run_parts(works, error)
        self._scheduler.went_well()
        return self._commit(works, {row.seq_id: row for row in drawn})

    def _run_parts(self, works: tuple[Work, ...], error: Exception) -> _Outcome:
        shorter = False
        if isinstance(error, OutOfMemory):  # the next steps have fewer rows, and shorter pieces of prompts
            self._counters.shrinks += 1
            shorter = self._scheduler.shrink(len(works))
        if len(works) > 1:
            middle = len(works) // 2
            return self._run(works[:middle]).joined(self._run(works[middle:]))
        if shorter and works[0].count > 1:
            return _Outcome([], [], 0)  # a shorter piece comes next
        return _Outcome([], [_Failed(works[0].sequence, error)], 0)

    def _probe(self, failed: list[_Failed]) -> None:
        """All rows failed alone: the rows, or the device? Raises EngineSick if it is the device."""
        try:
            self._runner.probe()
        except Exception as error:
            why = failed[0].error if failed else error
            reason = f"the device fails its check ({error}); rows failed with {type(why).__name__}: {why}"
            raise EngineSick(reason) from error

    def _commit(self, works: tuple[Work, ...], drawn: dict[str, Drawn]) -> _Outcome:
        updates: list[Update] = []
        failed: list[_Failed] = []
        for work in works:
            row = drawn.get(work.sequence.seq_id)
            assert (row is not None) == work.draws, (
                f"sequence {work.sequence.seq_id}: drawn {row}, expected {work.draws}"
            )
            work.sequence.computed = work.start + work.count
            if row is not None and row.error is not None:
                failed.append(_Failed(work.sequence, row.error))
            elif row is not None:
                updates.append(self._append(work.sequence, row))
        return _Outcome(updates, failed, len(works) - len(failed))

    def _append(self, sequence: Sequence, row: Drawn) -> Update:
        self._fresh.discard(sequence.seq_id)
        offset = len(sequence.output_ids)
        sequence.append(row.token_id)
        if sequence.finish_reason is not None:
            self._scheduler.remove(sequence.seq_id)
            self._release(sequence)
        logprobs = () if row.logprob is None else (row.logprob,)
        top = (row.top,) if sequence.params.top_logprobs else ()
        return Update(sequence.seq_id, (row.token_id,), offset, sequence.finish_reason, None, logprobs, top)

    def _fail(self, sequence: Sequence, error: Exception) -> Update:
        self._scheduler.remove(sequence.seq_id)
        self._release(sequence)
        return Update(sequence.seq_id, error=error)

    def _count(self, batch: Batch) -> None:
        counters, slots = self._counters, {segment.slot for segment in batch.segments}
        counters.steps += 1
        counters.step_rows += len(batch.works)
        counters.decode_tokens += sum(segment.count for segment in batch.decode)
        counters.prefill_tokens += sum(segment.count for segment in batch.prefill)
        if 0 in slots:
            counters.mixed_steps[len(slots) - 1] += 1
