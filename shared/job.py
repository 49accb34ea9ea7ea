"""What travels: a job as submitted, and a result as stored.

Validated once, at submission; everything behind trusts these types. Knows nothing of Redis, of leases
or of running state (that is the worker's ``Sequence``). Times are milliseconds of the Redis server's
clock unless a name says otherwise.
"""

from __future__ import annotations

import re
from enum import StrEnum
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError, model_validator

from lorapool.shared.errors import InvalidRequest

NAME_PATTERN = r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}"
BASE_REF = "_base"
MAX_TOKENS = 1_000_000

Name = Annotated[str, StringConstraints(pattern=rf"^{NAME_PATTERN}$")]
StopString = Annotated[str, StringConstraints(min_length=1, max_length=256)]
_NAME = re.compile(NAME_PATTERN)


def check_name(kind: str, value: str) -> str:
    """Return ``value`` if it may become part of a key, else raise InvalidRequest naming it."""
    if isinstance(value, str) and _NAME.fullmatch(value):
        return value
    raise InvalidRequest(
        f"{kind} {value!r} is not a valid name: expected 1 to 128 of A-Z a-z 0-9 . _ -, starting with a letter or digit"
    )


class JobState(StrEnum):
    """delayed → queued → running → succeeded | failed; any of the first three → cancelled | expired."""

    DELAYED = "delayed"
    QUEUED = "queued"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"
    EXPIRED = "expired"

    @property
    def terminal(self) -> bool:
        return self in _TERMINAL


_TERMINAL = frozenset({JobState.SUCCEEDED, JobState.FAILED, JobState.CANCELLED, JobState.EXPIRED})


class FinishReason(StrEnum):
    """Why a sequence ended."""

    EOS_TOKEN = "eos_token"
    STOP_SEQUENCE = "stop_sequence"
    LENGTH = "length"


class Priority(StrEnum):
    HIGH = "high"
    NORMAL = "normal"
    LOW = "low"


class _Wire(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class SamplingParams(_Wire):
    """How the next token is chosen; names and meanings are those of transformers' processors.

    ``temperature`` 0 is greedy. ``top_k`` 0 and ``top_p`` 1 are off. Frequency and presence penalties follow
    the OpenAI definition (over generated tokens); ``repetition_penalty`` is CTRL's (prompt and generated tokens).
    ``seed`` None lets enqueue fix a random one, so that a retry draws the same tokens.
    """

    temperature: Annotated[float, Field(ge=0.0, le=2.0)] = 0.0
    top_p: Annotated[float, Field(gt=0.0, le=1.0)] = 1.0
    top_k: Annotated[int, Field(ge=0, le=MAX_TOKENS)] = 0
    min_p: Annotated[float, Field(ge=0.0, le=1.0)] = 0.0
    repetition_penalty: Annotated[float, Field(gt=0.0, le=10.0)] = 1.0
    frequency_penalty: Annotated[float, Field(ge=-2.0, le=2.0)] = 0.0
    presence_penalty: Annotated[float, Field(ge=-2.0, le=2.0)] = 0.0
    seed: Annotated[int, Field(ge=0, lt=2**63)] | None = None
    stop: Annotated[tuple[StopString, ...], Field(max_length=16)] = ()
    max_new_tokens: Annotated[int, Field(ge=1, le=MAX_TOKENS)] = 128
    min_new_tokens: Annotated[int, Field(ge=0, le=MAX_TOKENS)] = 0
    ignore_eos: bool = False
    logprobs: bool = False

    @model_validator(mode="after")
    def _min_within_max(self) -> SamplingParams:
        if self.min_new_tokens > self.max_new_tokens:
            raise ValueError(f"min_new_tokens {self.min_new_tokens} exceeds max_new_tokens {self.max_new_tokens}")
        return self


class Message(_Wire):
    """One chat message, rendered by the chat template of the adapter or the model."""

    role: Annotated[str, StringConstraints(pattern=r"^(system|user|assistant)$")]
    content: str


class Job(_Wire):
    """A request for one completion. Exactly one of ``prompt`` and ``messages`` is set.

    ``id`` is bare (without its partition); ``ref`` is an exact adapter ref or ``_base``.
    """

    id: Name
    ref: str
    agent: Name = "anonymous"
    prompt: str | None = None
    messages: Annotated[tuple[Message, ...], Field(min_length=1, max_length=1024)] | None = None
    params: SamplingParams = SamplingParams()
    priority: Priority = Priority.NORMAL
    stream: bool = False
    delay_ms: Annotated[int, Field(ge=0, le=366 * 86_400_000)] = 0
    deadline_ms: Annotated[int, Field(ge=1, le=366 * 86_400_000)] | None = None  # after submission
    client: Name | None = None  # whose inbox hears of the end

    @model_validator(mode="after")
    def _one_input(self) -> Job:
        if (self.prompt is None) == (self.messages is None):
            raise ValueError("exactly one of prompt and messages must be given")
        return self

    @classmethod
    def parse(cls, **fields: Any) -> Job:
        """Validate, turning pydantic's complaint into one InvalidRequest line that names every bad field."""
        try:
            return cls.model_validate(fields)
        except ValidationError as error:
            raise InvalidRequest(explain_validation(error)) from None


def explain_validation(error: ValidationError) -> str:
    """One line: each bad field, its value (shortened) and what was expected."""
    parts = []
    for item in error.errors(include_url=False):
        where, value = ".".join(str(part) for part in item["loc"]), repr(item["input"])
        place = f"{where} = {value if len(value) <= 60 else value[:57] + '...'}: " if where else ""
        parts.append(place + item["msg"].removeprefix("Value error, "))
    return "; ".join(parts)


class Usage(_Wire):
    """Tokens, counted."""

    prompt_tokens: int
    completion_tokens: int


class Timings(_Wire):
    """Milliseconds. ``queued`` submit → claim, ``load`` waiting for the adapter's slot, ``first_token`` submit → first
    token, ``total`` submit → terminal."""

    queued_ms: int | None = None
    load_ms: int | None = None
    first_token_ms: int | None = None
    total_ms: int | None = None


class Result(_Wire):
    """A succeeded job's answer, with the proof of what produced it."""

    job_id: str
    text: str
    finish_reason: FinishReason
    usage: Usage
    timings: Timings
    adapter: str  # the ref served
    digest: str  # sha256 of that adapter's config and weights; empty for the base model
    agent: str
    attempts: int
    worker: str
    device: str
    dtype: str
    seed: int
    resident: bool  # the adapter was in a device slot when the job was picked
    token_ids: tuple[int, ...] = ()
    logprobs: tuple[float, ...] | None = None
