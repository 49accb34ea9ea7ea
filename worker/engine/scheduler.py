"""Who is in the next step: waiting and running sequences, the token budget. Pure: no torch, no Redis, no clock.

Every running sequence that has drawn its first token decodes one token a step. A budget of tokens goes to newcomers'
prompts, in chunks, so that a long prompt delays the others by at most one chunk. The oldest newcomer comes first, then
those of the same adapter, then the next oldest: the fewer adapters in a chunk, the less of their weights is read.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain

from lorapool.worker.engine.sequence import Batch, Sequence, Status, Work

LEAST_PREFILL = 16  # tokens: a prompt is never read in shorter pieces for want of memory
GROW_AFTER = 64  # steps without want of memory, then twice as much is tried


class Scheduler:
    """Owns the lists of waiting and running sequences.

    ``max_batch`` bounds the running rows, ``prefill_tokens`` the prompt tokens computed in one step. Both are halved
    where the device has no memory for so many (``shrink``), and doubled again after a while without such want.
    """

    def __init__(self, *, max_batch: int = 64, prefill_tokens: int = 512) -> None:
        if max_batch < 1 or prefill_tokens < 1:
            raise ValueError(f"max_batch {max_batch} and prefill_tokens {prefill_tokens} must be at least 1")
        self.max_batch, self.prefill_tokens = max_batch, prefill_tokens
        self._rows, self._budget, self._good_steps = max_batch, prefill_tokens, 0
        self._waiting: dict[str, Sequence] = {}
        self._running: dict[str, Sequence] = {}

    def __contains__(self, seq_id: str) -> bool:
        return seq_id in self._waiting or seq_id in self._running

    def __len__(self) -> int:
        return len(self._waiting) + len(self._running)

    @property
    def running(self) -> tuple[Sequence, ...]:
        return tuple(self._running.values())

    @property
    def waiting(self) -> tuple[Sequence, ...]:
        return tuple(self._waiting.values())

    @property
    def room(self) -> int:
        """Rows that could start now."""
        return max(0, self._rows - len(self._running))

    def add(self, sequence: Sequence) -> None:
        """Queue a sequence behind those waiting."""
        assert sequence.seq_id not in self, f"sequence {sequence.seq_id} is here already"
        self._waiting[sequence.seq_id] = sequence

    def start(self, sequence: Sequence) -> None:
        """Move a waiting sequence, whose slot and KV row are held, among the running."""
        assert self.room > 0, f"no room for {sequence.seq_id}: {len(self._running)} of {self._rows} rows run"
        self._running[sequence.seq_id] = self._waiting.pop(sequence.seq_id)
        sequence.status, sequence.started = Status.RUNNING, True

    def remove(self, seq_id: str) -> Sequence | None:
        """Take a sequence out, wherever it is; None if it is not here."""
        return self._waiting.pop(seq_id, None) or self._running.pop(seq_id, None)

    def shrink(self, rows: int) -> bool:
        """A step of so many rows wanted too much memory: at most half of them from now on, and half the prompt tokens.
        True if those could be halved."""
        shorter = self._budget > LEAST_PREFILL
        self._rows = max(1, min(self._rows, rows // 2))
        self._budget = max(min(LEAST_PREFILL, self._budget), self._budget // 2)
        self._good_steps = 0
        return shorter

    def went_well(self) -> None:
        """A step found the memory that it wanted."""
        if self._rows == self.max_batch and self._budget == self.prefill_tokens:
            return
        self._good_steps += 1
        if self._good_steps >= GROW_AFTER:
            self._good_steps = 0
            self._rows, self._budget = min(self.max_batch, 2 * self._rows), min(self.prefill_tokens, 2 * self._budget)

    def excess(self) -> tuple[Sequence, ...]:
        """Running sequences beyond what may run: the last that started."""
        return self.running[self._rows :] if len(self._running) > self._rows else ()

    def next_batch(self) -> Batch | None:
        """Return the next step's work, or None if nothing runs."""
        works = [*self._decodes(), *self._prefills()]
        return Batch.of(works) if works else None

    def _decodes(self) -> Iterator[Work]:
        for sequence in self._running.values():
            if not sequence.prefilling:
                yield Work(sequence, sequence.computed, 1)

    def _prefills(self) -> Iterator[Work]:
        budget = self._budget
        for sequence in self._newcomers():
            count = min(budget, sequence.length - sequence.computed)
            budget -= count
            yield Work(sequence, sequence.computed, count)
            if not budget:
                return

    def _newcomers(self) -> Iterator[Sequence]:
        slots: dict[int, list[Sequence]] = {}
        for sequence in self._running.values():
            if sequence.prefilling:
                slots.setdefault(sequence.slot, []).append(sequence)
        return chain.from_iterable(slots.values())
