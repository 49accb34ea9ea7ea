"""Codec: jobs and result details to msgpack and back, with a schema version and a size limit.

The version is a major one: a release that only adds fields keeps it, since readers ignore fields that they do not
know; one that changes what a field means raises it, and older readers refuse the record. Never pickle. Knows no Redis.
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from hashlib import blake2b
from typing import Any

import msgpack
from pydantic import ValidationError

from lorapool.shared.errors import InvalidRequest, PayloadTooLarge, UnsupportedVersion
from lorapool.shared.job import Job, Message, SamplingParams, explain_validation

VERSION = 1
MAX_PAYLOAD_BYTES = 1 << 20
MAX_DETAIL_BYTES = 64 << 20

_JOB_FIELDS = frozenset(Job.model_fields)
_PARAM_FIELDS = frozenset(SamplingParams.model_fields)
_MESSAGE_FIELDS = frozenset(Message.model_fields)
_DEFAULT_PARAMS = SamplingParams()


def encode_job(job: Job, limit_bytes: int = MAX_PAYLOAD_BYTES) -> bytes:
    """The request as it travels. Raises PayloadTooLarge above ``limit_bytes``."""
    fields = {"v": VERSION, "id": job.id, "ref": job.ref, "agent": job.agent, **_input_of(job)}
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


def encode_detail(token_ids: Sequence[int], logprobs: Sequence[float] | None) -> bytes:
    """What of a result only programs read."""
    packed: bytes = msgpack.packb(
        {"v": VERSION, "token_ids": tuple(token_ids), "logprobs": logprobs and tuple(logprobs)}
    )
    return packed


def decode_detail(detail: bytes) -> tuple[tuple[int, ...], tuple[float, ...] | None]:
    """Token ids and, if they were asked for, the chosen tokens' log probabilities."""
    fields = _unpack_map(detail, MAX_DETAIL_BYTES)
    _check_version(fields.get("v"))
    token_ids, logprobs = fields.get("token_ids", []), fields.get("logprobs")
    if not isinstance(token_ids, list) or not isinstance(logprobs, list | None):
        raise InvalidRequest("stored detail: expected lists of token ids and of log probabilities")
    return tuple(token_ids), None if logprobs is None else tuple(logprobs)


def _packed(value: Any) -> bytes:
    try:
        packed: bytes = msgpack.packb(value)
    except UnicodeEncodeError as error:
        raise InvalidRequest(
            f"the request holds a lone surrogate, {error.object[error.start]!a}, which is no text: leave it out"
        ) from None
    return packed


def _input_of(job: Job) -> dict[str, Any]:
    """Input and sampling params, in a fixed order, without what is at its default."""
    messages = job.messages and [{"role": m.role, "content": m.content} for m in job.messages]
    return {"prompt": job.prompt, "messages": messages, "params": _changed(job.params)}


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
