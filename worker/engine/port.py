"""The Engine port: all that anything above an engine knows of it.

Requests go in; what steps did comes out in reports, as token ids: text and stop strings are above. An ``Engine``
computes, driven by one thread; an ``AsyncEngine`` is one that steps in a thread of this process, or in a process of its
own, which may die or hang and be started again without the worker. Knows no torch and no Redis.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Literal, NamedTuple, Protocol, TypeAlias

from lorapool.shared.errors import LorapoolError
from lorapool.shared.job import FinishReason
from lorapool.worker.engine.adapter_source import AdapterSource

Alternatives: TypeAlias = tuple[tuple[int, float], ...]
"""Token ids with their log probabilities, best first."""


class Sampling(NamedTuple):
    """How the tokens of a sequence are chosen, and when it ends: after ``max_new_tokens``, at the end of the context,
    or after one of ``eos_ids``, unless it is to ``ignore_eos``; none of them is drawn before ``min_new_tokens``.

    Names and meanings are those of transformers' processors (shared/job.py); the same ``seed`` draws the same tokens
    from the same logits, alone and in any batch.
    """

    max_new_tokens: int
    seed: int = 0
    temperature: float = 0.0
    top_p: float = 1.0
    top_k: int = 0
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    frequency_penalty: float = 0.0
    presence_penalty: float = 0.0
    min_new_tokens: int = 0
    eos_ids: tuple[int, ...] = ()
    ignore_eos: bool = False
    logprobs: bool = False
    top_logprobs: int = 0
    logit_bias: tuple[tuple[int, float], ...] = ()


class Request(NamedTuple):
    """One job for the engine. ``seq_id`` is unique to the attempt. ``source``: where its adapter comes from, None for
    the base model. ``grammar``: what its tokens must spell, as llguidance reads it; None for anything."""

    seq_id: str
    ref: str
    prompt_ids: list[int]
    params: Sampling
    source: AdapterSource | None = None
    grammar: str | None = None


class Start(NamedTuple):
    """A sequence got its row. ``resident``: its adapter was in a slot when it was first looked at."""

    seq_id: str
    load_ms: int  # waited for the adapter's slot
    resident: bool


class Update(NamedTuple):
    """What one step did to one sequence. ``offset`` is the index of ``token_ids[0]`` in the completion; ``logprobs``:
    one a token where the request asked for them, of the raw logits; ``top``: the most probable tokens at each of those
    places, as many as it asked for, the lowest id first among equals."""

    seq_id: str
    token_ids: tuple[int, ...] = ()
    offset: int = 0
    finish_reason: FinishReason | None = None
    error: Exception | None = None
    logprobs: tuple[float, ...] = ()
    top: tuple[Alternatives, ...] = ()

    @property
    def is_last(self) -> bool:
        """The sequence has left the engine."""
        return self.finish_reason is not None or self.error is not None


class Lost(NamedTuple):
    """The engine ended with all that was inside. ``blamed``: the sequences that it was busy with, of those; none where
    the device itself is at fault."""

    why: Literal["died", "hung", "sick"]
    reason: str  # for people
    inside: frozenset[str]
    blamed: frozenset[str]


@dataclass(slots=True)
class Report:
    """What one or more steps brought, in order; ``lost`` stands for the end of all that was inside."""

    starts: list[Start] = field(default_factory=list)
    updates: list[Update] = field(default_factory=list)
    lost: Lost | None = None

    def __bool__(self) -> bool:
        return bool(self.starts or self.updates or self.lost)


@dataclass(frozen=True, slots=True)
class Facts:
    """What an engine is. ``grammars``: it serves requests with one; ``more``: whatever else it says of itself, for
    people."""

    device: str
    dtype: str
    max_model_len: int  # tokens of prompt and completion together
    more: Mapping[str, str | int | float] = field(default_factory=dict)
    grammars: bool = False

    def fields(self) -> dict[str, str | int | float]:
        """As results and heartbeats say it."""
        more = {**self.more, "device": self.device, "dtype": self.dtype, "max_model_len": self.max_model_len}
        return {**more, "grammars": int(self.grammars)}


@dataclass(frozen=True, slots=True)
class Residency:
    """Where each adapter's weights are: refs in a device slot, on the way there, in host memory."""

    device: frozenset[str]
    loading: frozenset[str]
    host: frozenset[str]


@dataclass(slots=True)
class EngineCounters:
    """Monotone counts since the start. ``mixed_steps[n]``: steps of n adapters together with base rows;
    ``joins``: steps at which a sequence joined while others ran; ``loaded``: adapters that went into a
    slot, each time; ``shrinks``: times that rows were given up for want of device memory."""

    steps: int = 0
    step_rows: int = 0
    prefill_tokens: int = 0
    decode_tokens: int = 0
    joins: int = 0
    failed_steps: int = 0
    shrinks: int = 0
    preemptions: int = 0
    adapter_loads: int = 0
    evictions: int = 0
    mixed_steps: Counter[int] = field(default_factory=Counter)
    loaded: Counter[str] = field(default_factory=Counter)

    def __add__(self, other: EngineCounters) -> EngineCounters:
        names = [field.name for field in fields(self)]
        return EngineCounters(**{name: getattr(self, name) + getattr(other, name) for name in names})

    def copy(self) -> EngineCounters:
        """As they are now, while the engine goes on counting."""
        return replace(self, mixed_steps=Counter(self.mixed_steps), loaded=Counter(self.loaded))


class Health(NamedTuple):
    """``state``: running; starting while it loads, at first or again. ``ails``: what is wrong, for people, or empty."""

    state: Literal["running", "starting"]
    ails: str
    step_age_s: float  # since it last passed a boundary between two steps
    restarts: int


class OutOfMemory(Exception):
    """The device has no memory for so many rows at once; for fewer it may."""


class EngineSick(LorapoolError):
    """The device does not compute: every row of a step failed alone, and a check that needs no row failed too."""


class EngineDown(LorapoolError):
    """The engine is not there at this moment: what was asked of it has not begun."""


class EngineFailed(LorapoolError):
    """The engine cannot be brought up (again): the worker has nothing to serve with."""


class EngineError(Exception):
    """What a step raised in another process, by the name that it had there."""

    def __init__(self, name: str, message: str) -> None:
        super().__init__(message)
        self.name = name


def name_of(error: Exception) -> str:
    """The stable name of what a sequence ended with."""
    return error.name if isinstance(error, EngineError) else type(error).__name__


class Watch(Protocol):
    """Told what an engine is busy with, so that its end can be judged from outside."""

    def enter(self, seq_ids: Iterable[str]) -> None:
        """These are computed from now on."""
        ...

    def bring(self, stage: Literal["read", "placed"], ref: str | None) -> None:
        """This adapter is read, or placed on the device, from now on; None: it is done."""
        ...


class Engine(Protocol):
    """What computes, a step at a time. One thread calls it; ``residency`` and ``counters`` any."""

    @property
    def facts(self) -> Facts: ...

    @property
    def has_work(self) -> bool:
        """A sequence is inside."""
        ...

    def watch(self, watch: Watch) -> None:
        """Tell it from now on what is computed and which adapter is brought."""
        ...

    def check_device(self) -> None:
        """Raise EngineSick if the device does not compute as it did when the model was loaded."""
        ...

    def add(self, request: Request) -> None:
        """Queue a request. Raises what is wrong with it (InvalidRequest, AdapterConflict)."""
        ...

    def abort(self, seq_id: str) -> None:
        """Take a sequence out, with all that it holds; one that is not here is no matter."""
        ...

    def near(self, source: AdapterSource) -> None:
        """Bring an adapter towards a slot. Raises AdapterConflict where its ref is known with another digest."""
        ...

    def step(self) -> Report:
        """Compute once for all that can run; with nothing to do, get on with what adapters are on their way. Raises
        EngineSick where the device is at fault; what one sequence does wrong ends that sequence."""
        ...

    def residency(self) -> Residency:
        """As of a recent step."""
        ...

    def counters(self) -> EngineCounters:
        """Live: they go on counting, and a field may be one step ahead of another."""
        ...

    def check_integrity(self) -> None:
        """Raise AssertionError where it has lost count of what it holds: it could give wrong answers."""
        ...

    def close(self) -> None:
        """Begin nothing more."""
        ...


class AsyncEngine(Protocol):
    """An engine that steps elsewhere, in a thread or a process, as the worker's loop sees it. Methods are called on the
    event loop; only those that are awaited wait for anything."""

    @property
    def facts(self) -> Facts: ...

    def start(self) -> None:
        """Serve from now on."""
        ...

    async def close(self) -> None:
        """Let the current step end, within a bound; what is still inside is dropped."""
        ...

    def add(self, *requests: Request) -> None:
        """Queue requests, so that they can join the same step; what is wrong with one comes back as its update."""
        ...

    def abort(self, seq_id: str, *, finished: bool = False) -> None:
        """Take a sequence out before the next step; no updates of it matter from now on. ``finished``: what came of it
        is whole, as where its text ended it."""
        ...

    def near(self, source: AdapterSource) -> None:
        """Bring an adapter towards a slot before any request asks for it."""
        ...

    async def report(self) -> Report:
        """What came since the last call, once there is something. Raises EngineFailed, or what ended the engine."""
        ...

    async def up(self) -> None:
        """Return once requests can be added."""
        ...

    def residency(self) -> Residency:
        """As of a recent step."""
        ...

    def counters(self) -> EngineCounters:
        """As of a recent step."""
        ...

    def busy_time(self) -> Mapping[str, int]:
        """Milliseconds up and busy, by the names that the heartbeat gives them."""
        ...

    def health(self) -> Health:
        """Whether it gets on."""
        ...
