"""Answers: the fields of what scripts answer, and of what they read of a record, each in its order.

Declared here once, as arguments are in records.py; the Lua texts name them in the same way.
"""

from __future__ import annotations

from typing import NamedTuple

from lorapool.shared.scripts.rows import Records, fields_by_name

# -- answers, as words of a text or as a list


class Holder(NamedTuple):
    """Who lives under a worker's name: fields of its record."""

    boot: str
    host: str
    pid: str
    place: str
    beat_ms: str
    ttl_ms: str


class Head(NamedTuple):
    """Of a claimed job, beside its payload; "-" where there is none."""

    id: str
    ref: str
    digest: str
    agent: str
    attempt: str
    lost: str
    fence: str
    seed: str
    submitted_ms: str
    claimed_ms: str
    deadline_ms: str


class Looked(NamedTuple):
    """What a view begins with; then each waiting adapter."""

    now_ms: str
    next_due_ms: str
    ready: str
    behind: str
    apart: str
    suspects: str


class Waiting(NamedTuple):
    ref: str
    since_ms: str
    depth: str
    served: str


class Renewal(NamedTuple):
    """Of renew: ids in a text each."""

    lost: bytes
    cancelled: bytes
    overdue: bytes


class Full(NamedTuple):
    """After the word: whose limit is met."""

    scope: str
    depth: str
    limit: str
    retry_ms: str


class Quota(NamedTuple):
    """After the word: which limit of a key is met."""

    key: str
    limit_name: str
    limit: str
    used: str
    retry_ms: str


class Letter(NamedTuple):
    """A dead letter."""

    id: str
    ref: str
    agent: str
    reason: str
    message: str
    attempts: str
    lost: str
    died_ms: str
    redriven: str


class Limits(NamedTuple):
    """Fields of an adapter's record; empty where none was set."""

    max_depth: str
    max_inflight: str
    agent_window: str
    weight: str


class Result(NamedTuple):
    """The fields of a job's record that an awaiter reads."""

    state: bytes | None
    ref: bytes | None
    digest: bytes | None
    agent: bytes | None
    seed: bytes | None
    attempts: bytes | None
    worker: bytes | None
    submitted_ms: bytes | None
    started_ms: bytes | None
    first_token_ms: bytes | None
    finished_ms: bytes | None
    load_ms: bytes | None
    resident: bytes | None
    device: bytes | None
    dtype: bytes | None
    text: bytes | None
    detail: bytes | None
    finish_reason: bytes | None
    prompt_tokens: bytes | None
    completion_tokens: bytes | None
    error: bytes | None
    message: bytes | None


# A whole answer within a notice: a result without what is long or of a failure, then the text's length.
ANSWER = (*(name for name in Result._fields if name not in {"text", "detail", "error", "message"}), "text_bytes")

# -- what scripts read of a version's record

JUDGING = ("status", "digest", "judging", "judge_token", "judging_until_ms", "judge_deaths", "judges_dead")

# -- what scripts read of a job's record; what more it holds is written by name

QUEUED = (
    "state", "ref", "agent", "attempts", "cost", "submitted_ms", "stream", "deadline_ms", "lost", "fence", "digest",
    "seed",
)  # fmt: skip
RUNNING = (
    "state", "lease", "ref", "agent", "attempts", "cost", "submitted_ms", "stream", "deadline_ms", "worker", "client",
    "lost", "digest", "seed", "key", "started_ms",
)  # fmt: skip
JOB = (
    *RUNNING, "fence", "cancel", "lane", "entry", "priority", "settled", "first_token_ms", "lifted", "lost_leases",
    "due_ms", "spared",
)  # fmt: skip

RECORDS: Records = {
    "ANSWER": ANSWER,
    "QUEUED": QUEUED,
    "RUNNING": RUNNING,
    "JOB": JOB,
    "JUDGING": JUDGING,
    **fields_by_name(Holder, Head, Looked, Waiting, Renewal, Full, Quota, Letter, Limits, Result),
}
