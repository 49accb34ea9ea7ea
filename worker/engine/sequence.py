"""A running job, and the batch it is part of.

Knows a sequence's tokens and when they end it; neither text nor tensors nor Redis. All that a resumed job needs lives
here: the sampler and the KV cache can be rebuilt from it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Protocol

from lorapool.shared.job import FinishReason
from lorapool.worker.engine.port import Alternatives, Sampling


class Matcher(Protocol):
    """Where a sequence is in its grammar. What breaks in it is kept, and told by ``is_error``."""

    def consume_token(self, sampled_token: int) -> bool:
        """Go on by a token that was drawn."""
        ...

    def is_stopped(self) -> bool:
        """Nothing can follow: the grammar is at its end, or broken."""
        ...

    def is_error(self) -> bool: ...
    def get_error(self) -> str: ...


class Status(StrEnum):
    """WAITING → (LOADING →) RUNNING → FINISHED; any → FINISHED by abort or error."""

    WAITING = "waiting"
    LOADING = "loading"  # its adapter is on the way to a device slot
    RUNNING = "running"
    FINISHED = "finished"


@dataclass(slots=True, eq=False)
class Sequence:
    """One job inside the engine.

    ``computed`` counts the tokens whose keys and values are in the cache: always a prefix of
    ``prompt_ids + output_ids``, committed only after the step that computed them succeeded.
    """

    seq_id: str
    ref: str
    prompt_ids: list[int]
    params: Sampling
    output_ids: list[int] = field(default_factory=list)
    grammar: str | None = None
    matcher: Matcher | None = None
    status: Status = Status.WAITING
    started: bool = False  # it has had a row
    finish_reason: FinishReason | None = None
    slot: int = 0
    computed: int = 0
    max_new_tokens: int = 0  # params.max_new_tokens, capped by the context

    def __post_init__(self) -> None:
        self.max_new_tokens = self.max_new_tokens or self.params.max_new_tokens

    @property
    def length(self) -> int:
        return len(self.prompt_ids) + len(self.output_ids)

    @property
    def prefilling(self) -> bool:
        return self.computed < self.length - 1 or not self.output_ids

    @property
    def bans_eos(self) -> bool:
        """In a grammar, an end token that is to be ignored would end nothing: it may not be drawn."""
        ignores = self.params.ignore_eos and self.matcher is not None
        return ignores or len(self.output_ids) < self.params.min_new_tokens

    def tokens(self, start: int, count: int) -> list[int]:
        """Return ``count`` ids of prompt and output from ``start``."""
        prompt = len(self.prompt_ids)
        if start >= prompt:
            return self.output_ids[start - prompt : start - prompt + count]
        return (self.prompt_ids[start : start + count] + self.output_ids)[:count]

    def append(self, token_id: int) -> None:
        """Commit a drawn token. Sets ``finish_reason`` when it is the last."""
        self.output_ids.append(token_id)
        if self._ends_with(token_id):
            self.finish_reason = FinishReason.EOS_TOKEN
        elif len(self.output_ids) >= self.max_new_tokens:
            self.finish_reason = FinishReason.LENGTH
        if self.finish_reason is not None:
            self.status = Status.FINISHED

    def _ends_with(self, token_id: int) -> bool:
        """By an end token, or where a grammar leaves nothing to follow; one that broke is told by its next mask."""
        if self.matcher is not None and self.matcher.consume_token(token_id) and self.matcher.is_stopped():
            return True
        return token_id in self.params.eos_ids and not self.params.ignore_eos


@dataclass(frozen=True, slots=True)
class Work:
    """Tokens ``start`` to ``start + count`` of one sequence, to be computed in one step."""

    sequence: Sequence
    start: int
    count: int

    @property
    def draws(self) -> bool:
        """True if the step reaches the sequence's last token, so that the next one is drawn."""
        return self.start + self.count == self.sequence.length


@dataclass(frozen=True, slots=True)
class Segment:
    """Neighbouring rows of one adapter; slot 0 is the base model."""

    slot: int
    works: tuple[Work, ...]

    @property
    def count(self) -> int:
        return sum(work.count for work in self.works)


@dataclass(frozen=True, slots=True)
class Batch:
    """One step: first the rows of one token each, then the longer pieces, each part sorted by slot."""

    decode: tuple[Segment, ...]
    prefill: tuple[Segment, ...]

    @property
    def segments(self) -> tuple[Segment, ...]:
        return self.decode + self.prefill

    @property
    def works(self) -> tuple[Work, ...]:
        return tuple(work for segment in self.segments for work in segment.works)

    @classmethod
    def of(cls, works: Iterator[Work] | list[Work] | tuple[Work, ...]) -> Batch:
        """Sort into parts and segments."""
        ordered = sorted(works, key=lambda work: work.sequence.slot)
        decode = [work for work in ordered if work.count == 1]
        return cls(_segments(decode), _segments([work for work in ordered if work.count > 1]))


def _segments(works: list[Work]) -> tuple[Segment, ...]:
    slots: dict[int, list[Work]] = {}
    for work in works:
        slots.setdefault(work.sequence.slot, []).append(work)
    return tuple(Segment(slot, tuple(rows)) for slot, rows in slots.items())


@dataclass(frozen=True, slots=True)
class Drawn:
    """The sampler's answer for one sequence. ``logprob`` and ``top`` are set where they were asked for, ``error``
    where the logits were not numbers and no token could be drawn."""

    seq_id: str
    token_id: int
    logprob: float | None = None
    error: Exception | None = None
    top: Alternatives = ()
