"""Codec: jobs and result details to msgpack and back, with a schema version and a size limit.

The version is a major one: a release that only adds what may be ignored keeps it, since readers ignore fields that they
do not know. What changes an answer raises it, and older readers refuse the record; a request that makes no use of it is
written as the version before, which all can read. Never pickle. Knows no Redis.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from hashlib import blake2b
from typing import Any, NamedTuple

import msgpack
from pydantic import ValidationError

from lorapool.shared.errors import InvalidRequest, PayloadTooLarge, UnsupportedVersion
from lorapool.shared.job import Job, Message, More, SamplingParams, TokenLogprob
from lorapool.shared.tools import ToolCall, ToolCallDelta
from lorapool.shared.wire import explain_validation

VERSION, PLAIN_VERSION = 2, 1
MAX_PAYLOAD_BYTES = 1 << 20
MAX_DETAIL_BYTES = 64 << 20

_JOB_FIELDS = frozenset(Job.model_fields)
_PARAM_FIELDS = frozenset(SamplingParams.model_fields)
_MESSAGE_FIELDS = frozenset(Message.model_fields)
_DEFAULT_PARAMS = SamplingParams()
_PLAIN_FIELDS = frozenset({"prompt", "messages", "params"})  # of the input, by version 1
_SINCE_PLAIN = frozenset({"top_logprobs", "logit_bias"})  # params
_PLAIN_MESSAGE = frozenset({"role", "content"})


def encode_job(job: Job, limit_bytes: int = MAX_PAYLOAD_BYTES) -> bytes:
    """The request as it travels. Raises PayloadTooLarge above ``limit_bytes``."""
    given = _input_of(job)
    version = VERSION if _beyond_plain(given) else PLAIN_VERSION
    fields = {"v": version, "id": job.id, "ref": job.ref, "agent": job.agent, **given}
    fields |= {"priority": job.priority.value, "stream": job.stream, "delay_ms": job.delay_ms}
    fields |= {"deadline_ms": job.deadline_ms, "client": job.client}
    packed = _packed(fields)
    if len(packed) > limit_bytes:
        raise PayloadTooLarge(f"request of job {job.id} takes {len(packed):,} bytes, the limit is {limit_bytes:,}")
    return packed


def decode_job(payload: bytes) -> Job:
    """The job of ``encode_job``. Raises UnsupportedVersion for a newer schema, InvalidRequest for anything else."""
    fields = _unpack_map(payload, MAX_PAYLOAD_BYTES)
    _check_version(fields.pop("v", None))
    known = _only(fields, _JOB_FIELDS)
    if isinstance(known.get("params"), dict):
        known["params"] = _only(known["params"], _PARAM_FIELDS)
    if isinstance(known.get("messages"), list):
        known["messages"] = [_only(m, _MESSAGE_FIELDS) if isinstance(m, dict) else m for m in known["messages"]]
    try:
        return Job.model_validate(known)
    except ValidationError as error:
        raise InvalidRequest(f"stored request: {explain_validation(error)}") from None


def fingerprint(job: Job) -> str:
    """What makes two submissions of one id the same request: adapter, agent, input and sampling params.

    Priority, delay, deadline, streaming and the waiting client may differ: they do not change the answer.
    """
    packed = _packed((job.ref, job.agent, _input_of(job)))
    return blake2b(packed, digest_size=16).hexdigest()


def seed_of(job: Job) -> int:
    """The job's own seed, or a fresh random one of 48 bits."""
    return secrets.randbits(48) if job.params.seed is None else job.params.seed


def encode_detail(
    token_ids: Sequence[int],
    logprobs: Sequence[float] | None,
    token_logprobs: Sequence[TokenLogprob] | None = None,
    tool_calls: Sequence[ToolCall] = (),
) -> bytes:
    """What of a result only programs read."""
    fields: dict[str, Any] = {
        "v": PLAIN_VERSION,
        "token_ids": tuple(token_ids),
        "logprobs": logprobs and tuple(logprobs),
    }
    if token_logprobs is not None:
        fields["token_logprobs"] = [_row(token) for token in token_logprobs]
    if tool_calls:
        fields["tool_calls"] = [call.model_dump() for call in tool_calls]
    packed: bytes = msgpack.packb(fields)
    return packed


class Detail(NamedTuple):
    """Token ids; where they were asked for, the chosen tokens' log probabilities, alone and with all that is told of
    each; and the calls of tools."""

    token_ids: tuple[int, ...] = ()
    logprobs: tuple[float, ...] | None = None
    token_logprobs: tuple[TokenLogprob, ...] | None = None
    tool_calls: tuple[ToolCall, ...] = ()


def decode_detail(detail: bytes) -> Detail:
    """Of ``encode_detail``. Raises InvalidRequest for anything else, UnsupportedVersion for a newer schema."""
    fields = _unpack_map(detail, MAX_DETAIL_BYTES)
    _check_version(fields.get("v"))
    token_ids, logprobs = fields.get("token_ids", []), fields.get("logprobs")
    if not isinstance(token_ids, list) or not isinstance(logprobs, list | None):
        raise InvalidRequest("stored detail: expected lists of token ids and of log probabilities")
    rows, calls = fields.get("token_logprobs"), fields.get("tool_calls", ())
    try:
        told = None if rows is None else tuple(_token(row) for row in rows)
        called = tuple(ToolCall.model_validate(call) for call in calls)
    except (ValidationError, TypeError, ValueError) as error:
        raise InvalidRequest(f"stored detail: {error}") from None
    return Detail(tuple(token_ids), None if logprobs is None else tuple(logprobs), told, called)


def encode_more(more: More) -> str:
    """As an entry of a token stream has it: JSON, empty where there is nothing. Bytes are written as Latin-1."""
    if not (more.logprobs or more.tool_calls):
        return ""
    fields: dict[str, Any] = {}
    if more.logprobs:
        fields["logprobs"] = [_row(token) for token in more.logprobs]
    if more.tool_calls:
        fields["tool_calls"] = [call.model_dump(exclude_defaults=True) for call in more.tool_calls]
    return json.dumps(fields, ensure_ascii=False, separators=(",", ":"), default=lambda raw: raw.decode("latin-1"))


def decode_more(text: str) -> More:
    """Of ``encode_more``. Raises ValueError, TypeError, KeyError for anything else."""
    if not text:
        return More()
    fields = json.loads(text)
    calls = tuple(ToolCallDelta.model_validate(call) for call in fields.get("tool_calls", ()))
    return More(tuple(_token(row) for row in fields.get("logprobs", ())), calls)


def _row(token: TokenLogprob) -> tuple[Any, ...]:
    return token.id, token.text, token.logprob, [(one.id, one.text, one.logprob) for one in token.top]


def _token(row: Any) -> TokenLogprob:
    token_id, text, logprob, *top = row
    text = text.encode("latin-1") if isinstance(text, str) else text
    alternatives = tuple(_token(one) for one in top[0]) if top else ()
    return TokenLogprob(id=token_id, text=text, logprob=logprob, top=alternatives)


def _packed(value: Any) -> bytes:
    try:
        packed: bytes = msgpack.packb(value)
    except UnicodeEncodeError as error:
        raise InvalidRequest(
            f"the request holds a lone surrogate, {error.object[error.start]!a}, which is no text: leave it out"
        ) from None
    return packed


def _input_of(job: Job) -> dict[str, Any]:
    """What makes the answer, in a fixed order; of what version 1 did not have, only what is not at its default."""
    messages = job.messages and [_message(message) for message in job.messages]
    given: dict[str, Any] = {"prompt": job.prompt, "messages": messages, "params": _changed(job.params)}
    if job.prompt_ids is not None:
        given["prompt_ids"] = job.prompt_ids
    if job.response_format is not None:
        given["response_format"] = job.response_format.model_dump()
    if job.tools:
        given["tools"] = [tool.model_dump() for tool in job.tools]
        given["tool_choice"] = job.tool_choice.model_dump()
        given["parallel_tool_calls"] = job.parallel_tool_calls
    return given


def _message(message: Message) -> dict[str, Any]:
    plain: dict[str, Any] = {"role": message.role, "content": message.content}
    if message.tool_calls:
        plain["tool_calls"] = [call.model_dump() for call in message.tool_calls]
    if message.tool_call_id is not None:
        plain["tool_call_id"] = message.tool_call_id
    if message.name is not None:
        plain["name"] = message.name
    return plain


def _beyond_plain(given: dict[str, Any]) -> bool:
    """Whether a reader of version 1 would answer another question."""
    if given.keys() - _PLAIN_FIELDS or given["params"].keys() & _SINCE_PLAIN:
        return True
    return any(m.keys() - _PLAIN_MESSAGE or m["role"] == "tool" for m in given["messages"] or ())


def _changed(params: SamplingParams) -> dict[str, Any]:
    if params == _DEFAULT_PARAMS:
        return {}
    given, default = params.__dict__, _DEFAULT_PARAMS.__dict__
    return {name: given[name] for name in sorted(given) if given[name] != default[name]}


def _only(fields: dict[str, Any], known: AbstractSet[str]) -> dict[str, Any]:
    return fields if fields.keys() <= known else {name: value for name, value in fields.items() if name in known}


def _unpack_map(packed: bytes, limit_bytes: int) -> dict[str, Any]:
    if len(packed) > limit_bytes:
        raise InvalidRequest(f"stored record takes {len(packed):,} bytes, the limit is {limit_bytes:,}")
    try:
        fields = msgpack.unpackb(packed)
    except (ValueError, msgpack.exceptions.UnpackException) as error:
        raise InvalidRequest(f"stored record is not msgpack ({error or type(error).__name__})") from None
    if not isinstance(fields, dict):
        raise InvalidRequest(f"stored record is a {type(fields).__name__}, expected a map")
    return fields


def _check_version(version: object) -> None:
    if not isinstance(version, int) or version > VERSION:
        raise UnsupportedVersion(
            f"record has schema version {version!r}, this release reads up to {VERSION}; upgrade it"
        )
