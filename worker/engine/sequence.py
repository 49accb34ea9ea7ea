"""A running job, and the batch it is part of.

Knows a sequence's tokens, how they become text, and what holds text back: half a UTF-8 character (the
detokenizer's work) and anything that may yet turn out to be a stop string. Knows neither tensors nor Redis.
All that a resumed job needs lives here: the sampler and the KV cache can be rebuilt from it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Protocol

from lorapool.shared.job import FinishReason, SamplingParams


class Detokenizer(Protocol):
    """Turns token ids into text, a piece at a time, never giving half a character."""

    def push(self, token_id: int) -> str:
        """Return the text that became certain with this token; often one piece, sometimes nothing."""
        ...


class Status(StrEnum):
    """WAITING → (LOADING →) RUNNING → FINISHED; any → FINISHED by abort or error."""

    WAITING = "waiting"
    LOADING = "loading"  # its adapter is on the way to a device slot
    RUNNING = "running"
    FINISHED = "finished"


@dataclass(slots=True)
class HeldText:
    """Text that is kept back while it may be the beginning of a stop string."""

    stop: tuple[str, ...]
    visible: str = ""
    pending: str = ""
    stopped: bool = False

    def push(self, text: str) -> str:
        """Take new text, return what may be shown of all that is pending. After a stop string: nothing more."""
        if self.stopped or not text:
            return ""
        if not self.stop:
            self.visible += text
            return text
        self.pending += text
        cut = self._first_stop()
        self.stopped = cut is not None
        return self._show(cut if cut is not None else len(self.pending) - self._held())

    def flush(self) -> str:
        """Return the rest: no stop string came of it."""
        return "" if self.stopped else self._show(len(self.pending))

    def _show(self, size: int) -> str:
        shown, self.pending = self.pending[:size], self.pending[size:]
        self.visible += shown
        return shown

    def _first_stop(self) -> int | None:
        found = [at for word in self.stop if (at := self.pending.find(word)) >= 0]
        return min(found, default=None)

    def _held(self) -> int:
        """Length of the longest end of ``pending`` that begins some stop string."""
        longest = max((len(word) for word in self.stop), default=1) - 1
        for size in range(min(longest, len(self.pending)), 0, -1):
            tail = self.pending[-size:]
            if any(word.startswith(tail) for word in self.stop):
                return size
        return 0


@dataclass(slots=True, eq=False)
class Sequence:
    """One job inside the engine.

    ``computed`` counts the tokens whose keys and values are in the cache: always a prefix of
    ``prompt_ids + output_ids``, committed only after the step that computed them succeeded.
    """

    seq_id: str
    ref: str
    prompt_ids: list[int]
    params: SamplingParams
    seed: int
    detokenizer: Detokenizer
    output_ids: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    status: Status = Status.WAITING
    finish_reason: FinishReason | None = None
    slot: int = 0
    computed: int = 0
    max_new_tokens: int = 0  # params.max_new_tokens, capped by the context
    held: HeldText = field(init=False)

    def __post_init__(self) -> None:
        self.held = HeldText(self.params.stop)
        self.max_new_tokens = self.max_new_tokens or self.params.max_new_tokens

    @property
    def text(self) -> str:
        """What has been shown so far; after the end, the whole answer, cut before a stop string."""
        return self.held.visible

    @property
    def length(self) -> int:
        return len(self.prompt_ids) + len(self.output_ids)

    @property
    def prefilling(self) -> bool:
        return self.computed < self.length - 1 or not self.output_ids

    @property
    def bans_eos(self) -> bool:
        return len(self.output_ids) < self.params.min_new_tokens

    def tokens(self, start: int, count: int) -> list[int]:
        """Return ``count`` ids of prompt and output from ``start``."""
        prompt = len(self.prompt_ids)
        if start >= prompt:
            return self.output_ids[start - prompt : start - prompt + count]
        return (self.prompt_ids[start : start + count] + self.output_ids)[:count]

    def append(self, token_id: int, logprob: float | None, eos_ids: frozenset[int]) -> str:
        """Commit a drawn token; return the text it lets be shown. Sets ``finish_reason`` when it is the last."""
        self.output_ids.append(token_id)
        if logprob is not None:
            self.logprobs.append(logprob)
        shown = self.held.push(self.detokenizer.push(token_id))
        self.finish_reason = self._reason(token_id, eos_ids)
        if self.finish_reason is not None:
            shown += self.held.flush()
            self.status = Status.FINISHED
        return shown

    def _reason(self, token_id: int, eos_ids: frozenset[int]) -> FinishReason | None:
        if self.held.stopped:
            return FinishReason.STOP_SEQUENCE
        if token_id in eos_ids and not self.params.ignore_eos:
            return FinishReason.EOS_TOKEN
        return FinishReason.LENGTH if len(self.output_ids) >= self.max_new_tokens else None


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
    """The sampler's answer for one sequence. ``logprob`` is set where it was asked for, ``error`` where the logits
    were not numbers and no token could be drawn."""

    seq_id: str
    token_id: int
    logprob: float | None = None
    error: Exception | None = None
