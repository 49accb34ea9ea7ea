"""Arguments: the protocol's words as the scripts take them.

The other half of the scripts' ``ARGV`` lines. Pure but for the jitter of a retry; knows no connection.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator

from lorapool.shared import codec
from lorapool.shared.job import Job
from lorapool.shared.keys import bare_id, check_job_id
from lorapool.shared.protocol import Delta, Held, Settlement
from lorapool.shared.server import Arg


def of_enqueue(job: Job) -> list[Arg]:
    """One job for enqueue.lua. Raises InvalidRequest or PayloadTooLarge."""
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


def of_settle(s: Settlement) -> tuple[Arg, ...]:
    """One settlement for settle.lua."""
    first_token_ms = "" if s.first_token_ms is None else s.first_token_ms
    numbers = (s.prompt_tokens, s.completion_tokens, s.load_ms, first_token_ms, int(s.resident))
    texts = (s.outcome, s.error, s.message, s.text, s.finish_reason)
    return (bare_id(s.job_id), s.lease, *texts, *numbers, s.device, s.dtype, s.detail, round(random.random(), 6))  # noqa: S311 - jitter


def of_delta(d: Delta) -> tuple[Arg, ...]:
    """One delta for emit.lua."""
    ids = " ".join(map(str, d.token_ids))
    return bare_id(d.job_id), d.lease, d.attempt, d.offset, len(d.token_ids), d.text, ids


def of_held(held: Iterable[Held]) -> Iterator[str]:
    """Job and lease of each, for renew.lua and release.lua."""
    for job in held:
        yield bare_id(job.job_id)
        yield job.lease
