"""What the worker's loop and its engine's process say to each other: frames of msgpack over a socket.

A frame is a length and a list whose first item names it. Both ends are one release; nothing here comes from outside.
Errors travel as name and words: one of ours becomes itself again, any other an EngineError of that name.
"""

from __future__ import annotations

import struct
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import fields
from typing import Any

import msgpack

from lorapool.shared import errors
from lorapool.shared.job import FinishReason
from lorapool.worker.engine import port as engine_port
from lorapool.worker.engine.adapter_source import AdapterSource
from lorapool.worker.engine.port import (
    EngineCounters,
    EngineError,
    Facts,
    Report,
    Request,
    Residency,
    Sampling,
    Start,
    Update,
    name_of,
)
from lorapool.worker.grammar import compiler

LENGTH = struct.Struct("<I")
MOST_BYTES = 1 << 30  # of one frame: more is no length
_COUNTED = ("mixed_steps", "loaded")  # counters by something
_OURS = {
    name: kind
    for module in (errors, engine_port, compiler)
    for name, kind in vars(module).items()
    if isinstance(kind, type) and issubclass(kind, errors.LorapoolError)
}


def framed(kind: str, *parts: Any) -> bytes:
    """One message as it travels."""
    body: bytes = msgpack.packb([kind, *parts])
    if len(body) > MOST_BYTES:
        raise ValueError(f"a frame of {len(body)} bytes, at most {MOST_BYTES} are sent")
    return LENGTH.pack(len(body)) + body


def size_of(head: bytes) -> int:
    """How long the body is that follows. Raises ValueError if that is no length."""
    (size,) = LENGTH.unpack(head)
    if size > MOST_BYTES:
        raise ValueError(f"a frame of {size} bytes, at most {MOST_BYTES} are sent")
    return int(size)


def opened(body: bytes) -> list[Any]:
    """A frame's body: the kind, then its fields. Raises ValueError if it is none."""
    message = msgpack.unpackb(body, strict_map_key=False)
    if not isinstance(message, list) or not message or not isinstance(message[0], str):
        raise ValueError(f"{type(message).__name__} where a message was expected")
    return message


def packed_requests(requests: Iterable[Request]) -> list[Any]:
    """As ``requests_of`` reads them."""
    return [
        [
            request.seq_id,
            request.ref,
            request.prompt_ids,
            request.params,
            packed_source(request.source),
            request.grammar,
        ]
        for request in requests
    ]


def requests_of(packed: Iterable[Sequence[Any]]) -> list[Request]:
    """What ``packed_requests`` packed."""
    return [
        Request(seq_id, ref, ids, _sampling_of(params), source_of(source), grammar)
        for seq_id, ref, ids, params, source, grammar in packed
    ]


def _sampling_of(packed: Sequence[Any]) -> Sampling:
    params = Sampling(*packed)
    bias = tuple((token_id, added) for token_id, added in params.logit_bias)
    return params._replace(eos_ids=tuple(params.eos_ids), logit_bias=bias)


def packed_source(source: AdapterSource | None) -> list[str] | None:
    """Where an adapter comes from, or that there is none."""
    return None if source is None else [source.ref, source.digest, source.uri]


def source_of(packed: Sequence[str] | None) -> AdapterSource | None:
    """What ``packed_source`` packed."""
    return None if packed is None else AdapterSource(*packed)


def packed_report(report: Report) -> list[Any]:
    """Starts and updates; a loss is told by the end of the line."""
    return [report.starts, [_packed_update(update) for update in report.updates]]


def report_of(packed: Sequence[Any]) -> Report:
    """What ``packed_report`` packed."""
    starts, updates = packed
    return Report([Start(*start) for start in starts], [_update_of(update) for update in updates])


def _packed_update(update: Update) -> list[Any]:
    error = None if update.error is None else packed_error(update.error)
    finish = None if update.finish_reason is None else update.finish_reason.value
    return [update.seq_id, update.token_ids, update.offset, finish, error, update.logprobs, update.top]


def _update_of(packed: Sequence[Any]) -> Update:
    seq_id, ids, offset, finish, error, logprobs, top = packed
    return Update(
        seq_id,
        tuple(ids),
        offset,
        None if finish is None else FinishReason(finish),
        None if error is None else error_of(error),
        tuple(logprobs),
        tuple(tuple((token_id, logprob) for token_id, logprob in place) for place in top),
    )


def packed_error(error: BaseException) -> list[str]:
    """Its name and its words, which must be text that msgpack can carry."""
    name = name_of(error) if isinstance(error, Exception) else type(error).__name__
    return [name, _words(error).encode(errors="replace").decode()]


def _words(error: BaseException) -> str:
    try:
        return str(error)
    except Exception as unspeakable:  # noqa: BLE001  a class of anyone's may break here too
        return f"it cannot be put into words ({type(unspeakable).__name__})"


def error_of(packed: Sequence[str]) -> Exception:
    """What ``packed_error`` packed."""
    name, message = packed
    try:
        return _OURS[name](message)
    except (KeyError, TypeError):  # not ours, or one that says more than its words
        return EngineError(name, message)


def packed_facts(facts: Facts) -> list[Any]:
    """Three of them, the rest by name, and whether it serves grammars."""
    return [facts.device, facts.dtype, facts.max_model_len, dict(facts.more), facts.grammars]


def facts_of(packed: Sequence[Any]) -> Facts:
    """What ``packed_facts`` packed."""
    return Facts(*packed)


def packed_residency(residency: Residency) -> list[list[str]]:
    """Refs in a device slot, on the way there, in host memory."""
    return [sorted(residency.device), sorted(residency.loading), sorted(residency.host)]


def residency_of(packed: Sequence[Iterable[str]]) -> Residency:
    """What ``packed_residency`` packed."""
    return Residency(*(frozenset(refs) for refs in packed))


def packed_counters(counters: EngineCounters) -> dict[str, Any]:
    """By name."""
    by_name = {field.name: getattr(counters, field.name) for field in fields(counters)}
    return by_name | {name: dict(by_name[name]) for name in _COUNTED}


def counters_of(packed: dict[str, Any]) -> EngineCounters:
    """What ``packed_counters`` packed."""
    return EngineCounters(**{**packed, **{name: Counter(packed[name]) for name in _COUNTED}})
