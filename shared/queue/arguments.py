"""Arguments: the records that scripts are given, made of the protocol's words; and how much of it one call may hold.

Their fields and order are scripts/records.py's. Pure; knows no connection.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from typing import TypeVar

from lorapool.shared import codec
from lorapool.shared.job import Job
from lorapool.shared.plain_text import encodable, plain_text
from lorapool.shared.queue.protocol import Delta, JobLease, Settlement
from lorapool.shared.scripts import records
from lorapool.shared.server import terms
from lorapool.shared.server.keys import bare_id, check_job_id
from lorapool.shared.server.server import Arg

MAX_JOBS = terms.MAX_JOBS
MAX_CALL_BYTES = 4 << 20  # of one enqueue call
T = TypeVar("T")


def of_job(job: Job) -> records.Enqueue:
    """Of enqueue. Raises PayloadTooLarge, InvalidRequest."""
    payload = codec.encode_job(job)
    return records.Enqueue(
        id=check_job_id(job.id),
        fingerprint=codec.fingerprint(job),
        ref=job.ref,
        agent=job.agent,
        client=job.client or "",
        priority=job.priority.value,
        stream=int(job.stream),
        seed=codec.seed_of(job),
        cost=_prompt_tokens(job) + job.params.max_new_tokens,  # until settled and known
        delay_ms=job.delay_ms,
        deadline_ms=job.deadline_ms or 0,
        key=job.key or "",
        payload=payload,
    )


def _prompt_tokens(job: Job) -> int:
    """About how many, by the size of its text."""
    if job.prompt_ids is not None:
        return len(job.prompt_ids)
    if job.messages is None:
        return len(job.prompt or "") // 4
    return sum(len(message.content) for message in job.messages) // 4


def of_settlement(s: Settlement) -> tuple[Arg, ...]:
    """Of settle."""
    return records.Settle(
        id=bare_id(s.job_id),
        lease=s.lease,
        outcome=s.outcome,
        error=s.error,
        message=plain_text(s.message),
        text=encodable(s.text),
        finish_reason=s.finish_reason,
        prompt_tokens=s.prompt_tokens,
        completion_tokens=s.completion_tokens,
        load_ms=s.load_ms,
        first_token_ms="" if s.first_token_ms is None else s.first_token_ms,
        resident=int(s.resident),
        device=s.device,
        dtype=s.dtype,
        detail=s.detail,
        jitter=random.random() if s.outcome == "retry" else 0,  # noqa: S311 - not a secret
    )


def of_delta(d: Delta) -> tuple[Arg, ...]:
    """Of emit."""
    return records.Emit(
        id=bare_id(d.job_id),
        lease=d.lease,
        attempt=d.attempt,
        offset=d.offset,
        tokens=len(d.token_ids),
        text=encodable(d.text),
        token_ids=" ".join(map(str, d.token_ids)),
        more=encodable(codec.encode_more(d.more)),
    )


def of_held(held: Iterable[JobLease]) -> Iterator[str]:
    """Of renew, release and lose, one after another."""
    return chain.from_iterable(records.Held(id=bare_id(job.job_id), lease=job.lease) for job in held)


def chunks(items: Sequence[T]) -> Iterator[Sequence[T]]:
    """Calls of at most 64 jobs."""
    for start in range(0, len(items), MAX_JOBS):
        yield items[start : start + MAX_JOBS]


def parts(packed: Iterable[tuple[int, records.Enqueue]]) -> Iterator[list[tuple[int, tuple[Arg, ...]]]]:
    """Calls of at most 64 jobs and 4 MiB."""
    part: list[tuple[int, tuple[Arg, ...]]] = []
    size = 0
    for item in packed:
        payload = item[1].payload
        if part and (len(part) == MAX_JOBS or size + len(payload) > MAX_CALL_BYTES):
            yield part
            part, size = [], 0
        part.append(item)
        size += len(payload)
    if part:
        yield part
