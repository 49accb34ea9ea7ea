"""Records: the fields of what scripts take, each in its order; and, with what they answer, all that Lua texts name.

Declared here once, answers in answers.py. Python packs and reads them by name; in the Lua texts ``ENQUEUE.ref`` is a
field's position from 1 on, ``ENQUEUE.WIDTH`` how many there are, ``JOB.FIELDS`` their names as arguments, and
``HEAD { id = …, ref = … }`` a table in this order (constants.py). ``Head`` of an operation is what comes before what is
given many times over.
"""

from __future__ import annotations

from typing import NamedTuple

from lorapool.shared.scripts import answers, batches
from lorapool.shared.scripts.rows import Records, fields_by_name

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
    key: str  # whose quota it is charged to; "": nobody's
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
    more: str  # JSON, or empty


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


class Canary(NamedTuple):
    name: str  # case-folded
    ref: str  # "": end it
    percent: int
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


class KeyAdd(NamedTuple):
    """Then field, value, ..."""

    name: str
    digest: str
    by: str
    note: str


class KeyRevoke(NamedTuple):
    name: str
    id: str  # of the act
    by: str


class KeyList(NamedTuple):
    seen: int
    wanted: int


class Audit(NamedTuple):
    id: str  # of the act
    who: str
    what: str
    on: str
    outcome: str
    note: str


class Replace(NamedTuple):
    """Then field, value, ..."""

    key: str
    ttl_ms: int


class Shed(NamedTuple):
    """Then ids."""

    ttl_ms: int


# Fields by the name that the Lua texts have for a record.
RECORDS: Records = {
    **fields_by_name(
        *(Enqueue, Claim, Settle, Emit, Held, Renew, Tick, OneJob, Redrive, Dead, PurgeDead, PurgeWaiting, Retire),
        *(Open, SetAdapterState, ChangeLimits, Tally, Counted, Pair, Alias, Canary, Rollback, Register, Decide, Refs),
        *(Judge, JudgeBegin, JudgeRenew, JudgeEnd, Resolve),
        *(Join, Beat, Total, Leave, ScheduleAdd, ScheduleMove, ChoreBegin, Replace),
        *(KeyAdd, KeyRevoke, KeyList, Audit, Shed),
    ),
    **answers.RECORDS,
    **batches.RECORDS,
}
