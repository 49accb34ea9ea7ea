"""A deterministic runner below the real engine: no model, no torch.

The next token is a pure function of (prompt ids, digest of what lies in the row's slot, index in the completion), so
that any process can say what a job's answer must be, and a wrong slot shows as wrong tokens. It checks what the engine
promises a runner: reserved rows, positions computed in order, rows sorted into one segment an adapter and part.
"""

from __future__ import annotations

import hashlib
import time
from dataclasses import dataclass, field
from typing import Any

from lorapool.worker.engine.port import Alternatives, Sampling
from lorapool.worker.engine.sequence import Batch, Drawn, Sequence, Work
from lorapool.worker.grammar.grammars import Grammars


def token_of(prompt_ids: list[int], digest: str, index: int, vocabulary: int = 1000) -> int:
    """The completion's token at ``index``; ``digest`` is empty for the base model."""
    text = f"{prompt_ids}/{digest}/{index}"
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") % vocabulary


def completion(prompt_ids: list[int], digest: str, count: int, vocabulary: int = 1000) -> list[int]:
    """What ``count`` new tokens must be."""
    return [token_of(prompt_ids, digest, index, vocabulary) for index in range(count)]


def forced(token: int, params: Sampling) -> int:
    """The token that a bias of 100 forces, else this one."""
    return next((token_id for token_id, bias in params.logit_bias if bias >= 100), token)


def alternatives(token: int, count: int, vocabulary: int = 1000) -> Alternatives:
    """What ``top_logprobs`` tells of at a place where this token was drawn."""
    return tuple(((token + place) % vocabulary, -0.5 - place) for place in range(count))


def next_allowed(mask: bytes, token: int, vocabulary: int = 1000) -> int:
    """The first token from this one, and from 0 again, whose bit is set."""
    tokens = ((token + step) % vocabulary for step in range(vocabulary))
    return next(token for token in tokens if mask[token // 8] >> token % 8 & 1)


@dataclass
class FakeStore:
    """A SlotStore that remembers digests. ``weights`` may be anything with a ``digest``."""

    slots: int = 8
    digests: dict[int, str] = field(default_factory=dict)

    @property
    def occupied(self) -> frozenset[int]:
        return frozenset(self.digests)

    def write(self, slot: int, weights: Any, /) -> None:
        assert 1 <= slot <= self.slots, f"slot {slot} of {self.slots}"
        self.digests[slot] = weights.digest

    def clear(self, slot: int, /) -> None:
        self.digests.pop(slot, None)


class FakeRunner:
    """``kv_tokens`` bounds what reservations may hold together; ``step_s`` is slept in every step.

    A sequence whose id is in ``poison`` makes every step that it is part of raise; ``before_step`` is called first.
    """

    def __init__(
        self,
        store: FakeStore | None = None,
        *,
        max_model_len: int = 4096,
        kv_tokens: int = 1 << 20,
        step_s: float = 0.0,
    ) -> None:
        self.store, self.max_model_len, self.step_s = store or FakeStore(), max_model_len, step_s
        self.poison: set[str] = set()
        self.batches: list[list[tuple[str, int, int]]] = []  # (seq_id, start, count) of each step that ran
        self.vocabulary = 1000
        self.grammars: Grammars | None = None
        self._kv_tokens = kv_tokens
        self._reserved: dict[str, int] = {}

    def reserve(self, seq_id: str, tokens: int) -> bool:
        assert seq_id not in self._reserved, f"{seq_id} reserved twice"
        if sum(self._reserved.values()) + tokens > self._kv_tokens:
            return False
        self._reserved[seq_id] = tokens
        return True

    def release(self, seq_id: str) -> None:
        del self._reserved[seq_id]

    def step(self, batch: Batch) -> list[Drawn]:
        time.sleep(self.step_s)
        works = batch.works
        self._check(batch)
        if poisonous := self.poison & {work.sequence.seq_id for work in works}:
            raise RuntimeError(f"poisonous {sorted(poisonous)}")
        self.batches.append([(work.sequence.seq_id, work.start, work.count) for work in works])
        return [self._drawn(work.sequence) for work in works if work.draws]

    def probe(self) -> None:
        """A device that never fails."""

    def check_integrity(self) -> None:
        assert sum(self._reserved.values()) <= self._kv_tokens, "more reserved than there is"

    @property
    def reserved(self) -> frozenset[str]:
        return frozenset(self._reserved)

    def _drawn(self, sequence: Sequence) -> Drawn:
        params, token = sequence.params, forced(self._token(sequence), sequence.params)
        top = alternatives(token, params.top_logprobs, self.vocabulary)
        return Drawn(sequence.seq_id, token, -0.5 if params.logprobs else None, top=top)

    def _token(self, sequence: Sequence) -> int:
        digest = self.store.digests[sequence.slot] if sequence.slot else ""
        token = token_of(sequence.prompt_ids, digest, len(sequence.output_ids), self.vocabulary)
        masks = None if self.grammars is None else self.grammars.masks([sequence])
        if masks is None:
            return token
        for refused in masks.refused.values():
            raise refused
        return next_allowed(masks.bits[0].tobytes(), token, self.vocabulary)

    def _check(self, batch: Batch) -> None:
        for part in (batch.decode, batch.prefill):
            slots = [segment.slot for segment in part]
            assert slots == sorted(set(slots)), f"segments {slots} are not one an adapter"
        for work in batch.works:
            self._check_work(work)

    def _check_work(self, work: Work) -> None:
        sequence = work.sequence
        assert work.start == sequence.computed, f"{sequence.seq_id}: start {work.start}, computed {sequence.computed}"
        assert work.start + work.count <= sequence.length <= self._reserved[sequence.seq_id]
