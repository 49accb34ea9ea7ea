"""A caller's arguments become a Job, or one InvalidRequest line that names the field, the value and what was expected.

Knows the sampling params by name, and their look-alikes from other APIs. Knows nothing of Redis: adapter names are
resolved elsewhere, a Request still carries the caller's own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from difflib import get_close_matches
from typing import Any

from pydantic import ValidationError

from lorapool.shared.errors import InvalidRequest
from lorapool.shared.job import Job, SamplingParams
from lorapool.shared.response_format import ResponseFormat
from lorapool.shared.server.keys import check_job_id, new_job_id
from lorapool.shared.tools import Tool, ToolChoice
from lorapool.shared.wire import explain_validation

Seconds = float | int | timedelta
_LOOK_ALIKES = {
    "max_tokens": "max_new_tokens",
    "max_completion_tokens": "max_new_tokens",
    "max_length": "max_new_tokens",
    "min_tokens": "min_new_tokens",
    "stop_sequences": "stop",
    "stop_strings": "stop",
    "do_sample": "temperature",
    "random_seed": "seed",
    "typical_p": "top_p",
    "timeout": "deadline",
    "model": "adapter",
}


@dataclass(frozen=True, slots=True)
class Request:
    """One item of ``gather`` and ``submit_many``; the fields are the arguments of ``Client.submit``.

    ``delay`` and ``deadline`` are seconds (or a timedelta) after submission. ``params`` are sampling params by name.
    ``on_lost`` None is what the call says for all.
    """

    adapter: str | None = None
    prompt: str | None = None
    messages: Sequence[Mapping[str, Any]] | None = None
    agent: str | None = None
    job_id: str | None = None
    priority: str = "normal"
    delay: Seconds | None = None
    deadline: Seconds | None = None
    stream: bool = False
    on_lost: str | None = None
    prompt_ids: Sequence[int] | None = None
    response_format: ResponseFormat | Mapping[str, Any] | None = None
    tools: Sequence[Tool | Mapping[str, Any]] = ()
    tool_choice: ToolChoice | Mapping[str, Any] | str = "auto"
    parallel_tool_calls: bool = True
    key: str | None = None
    params: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, item: Request | Mapping[str, Any] | Sequence[Any]) -> Request:
        """A Request from itself, from a dict of ``submit`` arguments, or from a pair (adapter, prompt)."""
        if isinstance(item, Request):
            return item
        if isinstance(item, Mapping):
            return cls.from_arguments(item)
        if isinstance(item, (tuple, list)) and len(item) == 2:
            return cls(adapter=item[0], prompt=item[1])
        raise InvalidRequest(
            f"request = {item!r:.60}: expected a Request, a dict of submit() arguments, or a pair (adapter, prompt)"
        )

    @classmethod
    def from_arguments(cls, arguments: Mapping[str, Any]) -> Request:
        own = {name: value for name, value in arguments.items() if name in OPTIONS}
        params = {name: value for name, value in arguments.items() if name not in OPTIONS}
        return cls(**own, params=params)

    def job(self, *, ref: str, agent: str, client: str) -> Job:
        """Validate everything. Raises InvalidRequest; nothing has been sent then."""
        if self.on_lost is not None:
            check_on_lost(self.on_lost)
        return Job.parse(
            id=new_job_id() if self.job_id is None else check_job_id(self.job_id),
            ref=ref,
            agent=self.agent if self.agent is not None else agent,
            prompt=self.prompt,
            prompt_ids=None if self.prompt_ids is None else tuple(self.prompt_ids),
            messages=_messages(self.messages),
            response_format=ResponseFormat.of(self.response_format),
            tools=_tools(self.tools),
            tool_choice=ToolChoice.of(self.tool_choice),
            parallel_tool_calls=self.parallel_tool_calls,
            params=sampling_params(self.params),
            priority=self.priority,
            stream=self.stream,
            delay_ms=_milliseconds("delay", self.delay) or 0,
            deadline_ms=_milliseconds("deadline", self.deadline),
            client=client,
            key=self.key,
        )


ON_LOST = ("raise", "resubmit")


def check_on_lost(value: str) -> str:
    """Return it if it is known, else raise InvalidRequest."""
    if value in ON_LOST:
        return value
    raise InvalidRequest(f'on_lost = {value!r:.60}: expected "raise" or "resubmit"')


OPTIONS = frozenset(Request.__dataclass_fields__) - {"params"}
PARAMS = tuple(SamplingParams.model_fields)


def sampling_params(params: Mapping[str, Any]) -> SamplingParams:
    """SamplingParams from keywords; a single stop string may stand for itself."""
    for name in params:
        if name not in PARAMS:
            raise InvalidRequest(_unknown(name, params[name]))
    given = dict(params)
    if isinstance(given.get("stop"), str):
        given["stop"] = (given["stop"],)
    try:
        return SamplingParams.model_validate(given)
    except ValidationError as error:
        raise InvalidRequest(explain_validation(error)) from None


def _unknown(name: str, value: object) -> str:
    shown = f"{name} = {value!r:.60}"
    known = sorted(OPTIONS | set(PARAMS))
    near = [_LOOK_ALIKES[name]] if name in _LOOK_ALIKES else get_close_matches(name, known, n=1)
    hint = f"did you mean {near[0]!r}?" if near else f"known are {', '.join(known)}"
    return f"{shown}: unknown parameter; {hint}"


def _messages(messages: object) -> tuple[object, ...] | None:
    if messages is None:
        return None
    if isinstance(messages, str | Mapping) or not isinstance(messages, Sequence):
        raise InvalidRequest(f"messages = {messages!r:.60}: expected a list of {{'role': …, 'content': …}}")
    return tuple(dict(message) if isinstance(message, Mapping) else message for message in messages)


def _tools(tools: object) -> tuple[Tool, ...]:
    if isinstance(tools, str | Mapping) or not isinstance(tools, Sequence):
        raise InvalidRequest(f"tools = {tools!r:.60}: expected a list of {{'name': …, 'parameters': …}}")
    return tuple(map(Tool.of, tools))


def _milliseconds(name: str, value: Seconds | None) -> int | None:
    if value is None:
        return None
    seconds = value.total_seconds() if isinstance(value, timedelta) else value
    if isinstance(seconds, bool) or not isinstance(seconds, (int, float)) or not 0 <= seconds <= 366 * 86_400:
        raise InvalidRequest(f"{name} = {value!r}: expected seconds after submission, from 0 to 366 days")
    return max(1, round(seconds * 1000)) if name == "deadline" else round(seconds * 1000)
