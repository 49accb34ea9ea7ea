"""Arguments: what the scripts are given, made of the protocol's words; and how much of it one call may hold.

The other half of the scripts' ``ARGV`` lines. Pure; knows no connection.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator, Sequence
from typing import TypeVar

from lorapool.shared import codec
from lorapool.shared.job import Job
from lorapool.shared.plain_text import encodable, plain_text
from lorapool.shared.queue.protocol import Delta, Held, Settlement
from lorapool.shared.server.keys import bare_id, check_job_id
from lorapool.shared.server.server import Arg

MAX_JOBS = 64  # of one script call
MAX_CALL_BYTES = 4 << 20  # of one enqueue call
T = TypeVar("T")


def of_job(job: Job) -> list[Arg]:
    """Of enqueue. Raises PayloadTooLarge, InvalidRequest."""
    payload = codec.encode_job(job)
    text_bytes = len(job.prompt or "") if job.messages is None else sum(len(m.content) for m in job.messages)
    cost = text_bytes // 4 + job.params.max_new_tokens  # tokens, until settled and known
    return [
        check_job_id(job.id),
        codec.fingerprint(job),
        job.ref,
        job.agent,
        job.client or "",
        job.priority.value,
        int(job.stream),
        codec.seed_of(job),
        cost,
        job.delay_ms,
        job.deadline_ms or 0,
        payload,
    ]


def of_settlement(s: Settlement) -> tuple[Arg, ...]:
    """Of settle."""
    first_token_ms = "" if s.first_token_ms is None else s.first_token_ms
    numbers = (s.prompt_tokens, s.completion_tokens, s.load_ms, first_token_ms, int(s.resident))
    texts = (s.outcome, s.error, plain_text(s.message), encodable(s.text), s.finish_reason)
    jitter = random.random() if s.outcome == "retry" else 0  # noqa: S311 - not a secret
    return (bare_id(s.job_id), s.lease, *texts, *numbers, s.device, s.dtype, s.detail, jitter)


def of_delta(d: Delta) -> tuple[Arg, ...]:
    """Of emit."""
    ids = " ".join(map(str, d.token_ids))
    return bare_id(d.job_id), d.lease, d.attempt, d.offset, len(d.token_ids), encodable(d.text), ids


def of_held(held: Iterable[Held]) -> Iterator[str]:
    """Of renew, release and lose."""
    for job in held:
        yield bare_id(job.job_id)
        yield job.lease


def chunks(items: Sequence[T]) -> Iterator[Sequence[T]]:
    """Calls of at most 64 jobs."""
    for start in range(0, len(items), MAX_JOBS):
        yield items[start : start + MAX_JOBS]


def parts(packed: Iterable[tuple[int, list[Arg]]]) -> Iterator[list[tuple[int, list[Arg]]]]:
    """Calls of at most 64 jobs and 4 MiB."""
    part: list[tuple[int, list[Arg]]] = []
    size = 0
    for item in packed:
        payload = item[1][-1]
        assert isinstance(payload, bytes)
        if part and (len(part) == MAX_JOBS or size + len(payload) > MAX_CALL_BYTES):
            yield part
            part, size = [], 0
        part.append(item)
        size += len(payload)
    if part:
        yield part
