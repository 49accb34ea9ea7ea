"""What travels: a job as submitted, and a result as stored.

Validated once, at submission; everything behind trusts these types. Knows nothing of Redis, of leases
or of running state (that is the worker's ``Sequence``). Times are milliseconds of the Redis server's
clock unless a name says otherwise.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from enum import StrEnum
from typing import Annotated, Any, NamedTuple

from pydantic import Field, StringConstraints, ValidationError, field_serializer, field_validator, model_validator

from lorapool.shared.errors import InvalidRequest
from lorapool.shared.response_format import ResponseFormat
from lorapool.shared.tools import CallId, Tool, ToolCall, ToolCallDelta, ToolChoice, ToolName
from lorapool.shared.wire import Wire, explain_validation

NAME_PATTERN = r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}"
BASE_REF = "_base"
MAX_TOKENS = 1_000_000

Name = Annotated[str, StringConstraints(pattern=rf"^{NAME_PATTERN}$")]
TokenId = Annotated[int, Field(ge=0, lt=2**31)]
Bias = Annotated[float, Field(ge=-100.0, le=100.0)]
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


class SamplingParams(Wire):
    """How the next token is chosen; names and meanings are those of transformers' processors.

    ``temperature`` 0 is greedy. ``top_k`` 0 and ``top_p`` 1 are off. Frequency and presence penalties follow
    the OpenAI definition (over generated tokens); ``repetition_penalty`` is CTRL's (prompt and generated tokens).
    ``seed`` None lets enqueue fix a random one, so that a retry draws the same tokens. ``logit_bias``: what is added to
    the logits of these token ids before all else, a mapping or pairs. ``top_logprobs``: how many of the most probable
    tokens ``logprobs`` tells of at each place.
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
    top_logprobs: Annotated[int, Field(ge=0, le=20)] = 0
    logit_bias: Annotated[tuple[tuple[TokenId, Bias], ...], Field(max_length=1024)] = ()

    @field_validator("logit_bias", mode="before")
    @classmethod
    def _pairs(cls, given: object) -> object:
        return tuple(sorted(given.items())) if isinstance(given, Mapping) else given

    @model_validator(mode="after")
    def _logprobs_before_top(self) -> SamplingParams:
        if self.top_logprobs and not self.logprobs:
            raise ValueError(f"top_logprobs {self.top_logprobs} needs logprobs = True")
        return self

    @model_validator(mode="after")
    def _min_within_max(self) -> SamplingParams:
        if self.min_new_tokens > self.max_new_tokens:
            raise ValueError(f"min_new_tokens {self.min_new_tokens} exceeds max_new_tokens {self.max_new_tokens}")
        return self


class Message(Wire):
    """One chat message, rendered by the chat template of the adapter or the model.

    An assistant's may have ``tool_calls``; a tool's is what came of the one named by ``tool_call_id``.
    """

    role: Annotated[str, StringConstraints(pattern=r"^(system|user|assistant|tool)$")]
    content: str
    tool_calls: Annotated[tuple[ToolCall, ...], Field(max_length=128)] = ()
    tool_call_id: CallId | None = None
    name: ToolName | None = None

    @model_validator(mode="after")
    def _calls_of_assistants(self) -> Message:
        if self.tool_calls and self.role != "assistant":
            raise ValueError(f"tool_calls go with role assistant, not {self.role}")
        if self.tool_call_id is not None and self.role != "tool":
            raise ValueError(f"tool_call_id goes with role tool, not {self.role}")
        return self


class Job(Wire):
    """A request for one completion. Exactly one of ``prompt``, ``prompt_ids`` and ``messages`` is set.

    ``id`` is bare (without its partition); ``ref`` is an exact adapter ref or ``_base``. ``prompt_ids``: the prompt as
    token ids of the base model, taken as they are. ``key``: whose quota it is charged to.
    """

    id: Name
    ref: str
    agent: Name = "anonymous"
    prompt: str | None = None
    prompt_ids: Annotated[tuple[TokenId, ...], Field(min_length=1)] | None = None
    messages: Annotated[tuple[Message, ...], Field(min_length=1, max_length=1024)] | None = None
    response_format: ResponseFormat | None = None
    tools: Annotated[tuple[Tool, ...], Field(max_length=128)] = ()
    tool_choice: ToolChoice = ToolChoice()
    parallel_tool_calls: bool = True
    params: SamplingParams = SamplingParams()
    priority: Priority = Priority.NORMAL
    stream: bool = False
    delay_ms: Annotated[int, Field(ge=0, le=366 * 86_400_000)] = 0
    deadline_ms: Annotated[int, Field(ge=1, le=366 * 86_400_000)] | None = None  # after submission
    client: Name | None = None  # whose inbox hears of the end
    key: Name | None = None

    @model_validator(mode="after")
    def _one_input(self) -> Job:
        if sum(given is not None for given in (self.prompt, self.prompt_ids, self.messages)) != 1:
            raise ValueError("exactly one of prompt, prompt_ids and messages must be given")
        return self

    @model_validator(mode="after")
    def _tools_in_a_chat(self) -> Job:
        if self.tools and self.messages is None:
            raise ValueError("tools go with messages: a plain prompt has no place for them")
        names = [tool.name for tool in self.tools]
        if len(set(names)) < len(names):
            raise ValueError(f"tools = {names}: each name may stand once")
        if unknown := set(self.tool_choice.names) - set(names):
            raise ValueError(f"tool_choice names {sorted(unknown)}, which are none of tools")
        if self.tool_choice.mode == "required" and not self.tools:
            raise ValueError("tool_choice = required: there are no tools")
        return self

    @classmethod
    def parse(cls, **fields: Any) -> Job:
        """Validate, turning pydantic's complaint into one InvalidRequest line that names every bad field."""
        try:
            return cls.model_validate(fields)
        except ValidationError as error:
            raise InvalidRequest(explain_validation(error)) from None


class Usage(Wire):
    """Tokens, counted."""

    prompt_tokens: int
    completion_tokens: int


class Timings(Wire):
    """Milliseconds. ``queued`` submit → claim, ``load`` waiting for the adapter's slot, ``first_token`` submit → first
    token, ``total`` submit → terminal."""

    queued_ms: int | None = None
    load_ms: int | None = None
    first_token_ms: int | None = None
    total_ms: int | None = None


class TokenLogprob(Wire):
    """A token at one place of an answer: its id, its bytes (in JSON a list of numbers, for it may be half a character),
    the log probability that it had by the raw logits; ``top``: the most probable tokens there, best first, as many as
    were asked for."""

    id: int
    text: bytes
    logprob: float
    top: tuple[TokenLogprob, ...] = ()

    @field_serializer("text", when_used="json")
    def _numbers(self, text: bytes) -> list[int]:
        return list(text)


class More(NamedTuple):
    """What a delta of a streamed job brings beside text."""

    logprobs: tuple[TokenLogprob, ...] = ()
    tool_calls: tuple[ToolCallDelta, ...] = ()

    def joined(self, other: More) -> More:
        """This, and then that."""
        return More(self.logprobs + other.logprobs, self.tool_calls + other.tool_calls)


NO_MORE = More()


class Result(Wire):
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
    token_logprobs: tuple[TokenLogprob, ...] | None = None
    tool_calls: tuple[ToolCall, ...] = ()
