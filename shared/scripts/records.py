"""Records: the fields of what scripts take and answer, and of what they read of a job, each in its order.

Declared here once. Python packs and reads them by name; in the Lua texts ``ENQUEUE.ref`` is a field's position from 1
on, ``ENQUEUE.WIDTH`` how many there are, ``JOB.FIELDS`` their names as arguments, and ``HEAD { id = …, ref = … }`` a
table in this order (constants.py). ``Head`` of an operation is what comes before what is given many times over.
"""

from __future__ import annotations

import re
from typing import Any, NamedTuple

# -- arguments of the queue's operations


class Enqueue(NamedTuple):
    """Of each job."""

    id: str
    fingerprint: str
    ref: str
    agent: str
    client: str
    priority: str
    stream: int  # 0 | 1
    seed: int
    cost: int  # tokens
    delay_ms: int
    deadline_ms: int  # from now; 0: none
    payload: bytes


class Claim(NamedTuple):
    """Then residents and preferred refs."""

    worker: str
    lease: str
    n: int
    max_adapters: int
    per_adapter: int
    lease_ms: int
    most_suspects: int  # together
    residents: int  # how many follow


class Settle(NamedTuple):
    """Of each attempt."""

    id: str
    lease: str
    outcome: str
    error: str
    message: str
    text: str
    finish_reason: str
    prompt_tokens: int
    completion_tokens: int
    load_ms: int
    first_token_ms: int | str  # "": none
    resident: int  # 0 | 1
    device: str
    dtype: str
    detail: bytes
    jitter: float  # 0..1, of a retry's delay


class Emit(NamedTuple):
    """Of each delta."""

    id: str
    lease: str
    attempt: int
    offset: int
    tokens: int  # how many
    text: str
    token_ids: str


class Held(NamedTuple):
    """Of each job that a worker names to renew, release or lose it."""

    id: str
    lease: str


class Renew(NamedTuple):
    """Then each job held."""

    lease_ms: int


class Tick(NamedTuple):
    """Then resident refs."""

    worker: str


class OneJob(NamedTuple):
    """Of cancel, expire and explain."""

    id: str


class Redrive(NamedTuple):
    id: str
    new_id: str


class Dead(NamedTuple):
    ref: str  # "": of all
    after: str  # entry id; "": from the newest
    wanted: int


class PurgeDead(NamedTuple):
    ref: str  # "": of all
    min_age_ms: int
    after: str  # entry id; "": from the oldest


class PurgeWaiting(NamedTuple):
    ref: str
    cursor: str


class Retire(NamedTuple):
    ref: str
    wish: str  # look | close


class Open(NamedTuple):
    """Then limits: field, value, ..."""

    ref: str
    digest: str


class SetAdapterState(NamedTuple):
    ref: str
    state: str


class ChangeLimits(NamedTuple):
    """Then field, value, ..."""

    ref: str


class Tally(NamedTuple):
    """Then each count."""

    reporter: str
    report: str


class Counted(NamedTuple):
    key: str
    field: str
    n: int


class Pair(NamedTuple):
    """Of each field that is given beside others."""

    field: str
    value: str | float


# -- arguments of the pool's operations


class Alias(NamedTuple):
    name: str  # case-folded
    ref: str  # "": delete
    token: str


class Rollback(NamedTuple):
    name: str  # case-folded
    token: str


class Resolve(NamedTuple):
    name: str
    folded: str


class Register(NamedTuple):
    """Then aliases, then field, value, ..."""

    ref: str
    id: str
    version: str
    digest: str
    aliases: int  # how many follow


class Decide(NamedTuple):
    """Then aliases, then field, value, ..."""

    ref: str
    digest: str
    id: str
    version: str
    aliases: int  # how many follow


class Judge(NamedTuple):
    """What all of its operations begin with."""

    op: str
    ref: str
    worker: str
    token: str


class JudgeBegin(NamedTuple):
    op: str
    ref: str
    worker: str
    token: str
    digest: str
    holds_ms: int


class JudgeRenew(NamedTuple):
    op: str
    ref: str
    worker: str
    token: str
    holds_ms: int


class JudgeEnd(NamedTuple):
    op: str
    ref: str
    worker: str
    token: str
    how: str  # died | unreached | left
    why: str


class Refs(NamedTuple):
    seen: int
    wanted: int


class Join(NamedTuple):
    """Then field, value, ..."""

    worker: str
    boot: str
    ttl_ms: int
    displaced: str  # boot; "": none


class Beat(NamedTuple):
    """Then each total, then field, value, ..."""

    worker: str
    boot: str
    ttl_ms: int
    serves: int  # 0 | 1
    scope: str  # all | changes
    totals: int  # how many follow


class Total(NamedTuple):
    name: str
    total: str | float  # as it stands in the record
    counted: int


class Leave(NamedTuple):
    worker: str
    boot: str


class ScheduleAdd(NamedTuple):
    """Then field, value, ..."""

    name: str
    next_ms: int


class ScheduleMove(NamedTuple):
    """Then field, value, ..."""

    name: str
    expected_ms: int | str
    next_ms: int | str  # "": it is over
    missed: int
    runs: int


class ChoreBegin(NamedTuple):
    chore: str
    tick_ms: int
    worker: str


class Replace(NamedTuple):
    """Then field, value, ..."""

    key: str
    ttl_ms: int


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
    "lost", "digest", "seed", "started_ms",
)  # fmt: skip
JOB = (
    *RUNNING, "fence", "cancel", "lane", "entry", "priority", "settled", "first_token_ms", "lifted", "lost_leases",
    "due_ms", "spared",
)  # fmt: skip

_CLASSES: tuple[Any, ...] = (
    *(Enqueue, Claim, Settle, Emit, Held, Renew, Tick, OneJob, Redrive, Dead, PurgeDead, PurgeWaiting, Retire),
    *(Open, SetAdapterState, ChangeLimits, Tally, Counted, Pair, Alias, Rollback, Register, Decide, Refs),
    *(Judge, JudgeBegin, JudgeRenew, JudgeEnd, Resolve),
    *(Join, Beat, Total, Leave, ScheduleAdd, ScheduleMove, ChoreBegin, Replace),
    *(Holder, Head, Looked, Waiting, Renewal, Full, Letter, Limits, Result),
)

# Fields by the name that the Lua texts have for a record.
RECORDS: dict[str, tuple[str, ...]] = {
    "ANSWER": ANSWER,
    "QUEUED": QUEUED,
    "RUNNING": RUNNING,
    "JOB": JOB,
    "JUDGING": JUDGING,
    **{re.sub(r"(?<=[a-z])(?=[A-Z])", "_", record.__name__).upper(): record._fields for record in _CLASSES},
}
