"""Replies: what the scripts and streams answer, read into the protocol's words.

Their fields and order are scripts/records.py's. Of many items those that cannot be read are stepped over
(malformed.py). Pure; knows no connection.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any, Literal, cast

from lorapool.shared import codec
from lorapool.shared.errors import (
    AdapterClosed,
    AdapterNotReady,
    Fate,
    InvalidRequest,
    JobConflict,
    LorapoolError,
    MalformedEntry,
    QueueFull,
    QuotaExceeded,
    UnknownAdapter,
    UnknownKey,
)
from lorapool.shared.job import Job, JobState, check_name
from lorapool.shared.malformed import UNREADABLE, readable, required, step_over, text_map
from lorapool.shared.queue.protocol import (
    Claim,
    ClaimedJob,
    DeadLetter,
    DeadPage,
    Enqueued,
    JobLease,
    Limits,
    Notice,
    Settled,
    StreamItem,
    View,
    WaitingAdapter,
)
from lorapool.shared.scripts import answers
from lorapool.shared.server.keys import Keys

RESULT_FIELDS = answers.Result._fields
_STATES = frozenset(JobState)


def enqueued(answer: str, job: Job, keys: Keys) -> Enqueued | LorapoolError:
    """One answer of enqueue.lua."""
    word, _, rest = answer.partition(" ")
    full_id = keys.full_id(job.id)
    match word:
        case "new" | "same":
            state = _state(rest) or JobState.FAILED  # damaged: whoever reads the record is told
            return Enqueued(full_id, state, created=word == "new")
        case "conflict":
            conflict = JobConflict(f"job {full_id} exists with another request; use another id, or none")
            return conflict.of_job(full_id, Fate.NOT_QUEUED)
        case "invalid":
            why = f"job {full_id} was refused by the queue: its {rest} is none that lorapool writes; see shared/job.py"
            return InvalidRequest(why).of_job(full_id, Fate.NOT_QUEUED)
    return refusal(answer, job.ref, job.agent).of_job(full_id, Fate.NOT_QUEUED)


def refusal(answer: str, ref: str, agent: str) -> LorapoolError:
    """Why an adapter takes no job of that agent, or a key may not be charged with it (admission.lua)."""
    word, _, rest = answer.partition(" ")
    match word:
        case "unknown":
            return UnknownAdapter(f"adapter {ref} takes no jobs in this pool: not registered, or not validated yet")
        case "pending":
            return AdapterNotReady(f"adapter {ref} is not validated yet")
        case "full":
            return required("a refusal", lambda: _queue_full(rest, ref, agent))
        case "quota":
            return required("a refusal", lambda: _quota_exceeded(rest))
        case "no_key":
            return UnknownKey(f"no API key {rest!r} in this pool, or it was revoked: see `lorapool keys ls`")
    return AdapterClosed(f"adapter {ref} is {word} and takes no new jobs")


def _queue_full(rest: str, ref: str, agent: str) -> QueueFull:
    full = answers.Full(*rest.split())
    whose = f"agent {agent} has" if full.scope == "agent" else "there are"
    where = "in the pool" if full.scope == "pool" else f"on {ref}"
    retry_s = int(full.retry_ms) / 1000
    return QueueFull(
        f"{whose} {full.depth} jobs waiting {where}, the {full.scope} limit is {full.limit}; "
        f"try again in {retry_s:g} s",
        scope=full.scope,
        depth=int(full.depth),
        limit=int(full.limit),
        retry_after_s=retry_s,
    )


def _quota_exceeded(rest: str) -> QuotaExceeded:
    quota = answers.Quota(*rest.split())
    what, of = ("jobs", "minute") if quota.limit_name == "jobs_per_minute" else ("tokens", "day (UTC)")
    retry_s = int(quota.retry_ms) / 1000
    return QuotaExceeded(
        f"key {quota.key} has used {quota.used} of its {quota.limit} {what} for this {of} and has no room for this "
        f"job; the {of} ends in {retry_s:g} s",
        key=quota.key,
        limit_name=quota.limit_name,
        limit=int(quota.limit),
        used=int(quota.used),
        retry_after_s=retry_s,
    )


def claim(answer: list[bytes], lease: str, keys: Keys) -> Claim:
    """The answer of claim.lua. Raises MalformedEntry for what no script of this release answers."""
    return required("a claim", lambda: _claim(answer, lease, keys))


def _claim(answer: list[bytes], lease: str, keys: Keys) -> Claim:
    jobs: list[ClaimedJob] = []
    unreadable: list[JobLease] = []
    for head, payload in zip(answer[1::2], answer[2::2], strict=True):
        try:
            jobs.append(_claimed(head.decode(), payload, lease, keys))
        except UNREADABLE as error:
            step_over("head of a claimed job", head, error)
            unreadable += readable("id of a claimed job", [head], partial(_held, lease=lease, keys=keys))
    return Claim(tuple(jobs), view(answer[0].decode(errors="replace")), tuple(unreadable))


def _held(head: bytes, lease: str, keys: Keys) -> JobLease:
    """Whose head it is, if that much can be read."""
    return JobLease(keys.full_id(check_name("job id", head.partition(b" ")[0].decode())), lease)


def _claimed(text: str, payload: bytes, lease: str, keys: Keys) -> ClaimedJob:
    head = answers.Head(*text.split(" "))
    return ClaimedJob(
        job_id=keys.full_id(head.id),
        lease=lease,
        ref=head.ref,
        digest="" if head.digest == "-" else head.digest,
        agent=head.agent,
        attempt=int(head.attempt),
        lost=int(head.lost),
        fence=int(head.fence),
        seed=int(head.seed),
        submitted_ms=int(head.submitted_ms),
        claimed_ms=int(head.claimed_ms),
        deadline_ms=None if head.deadline_ms == "-" else int(head.deadline_ms),
        payload=payload,
    )


def view(text: str) -> View:
    """The text of view.lua."""
    return required("a view of the queue", lambda: _view(text))


def _view(text: str) -> View:
    words = text.split(" ")
    width, each = len(answers.Looked._fields), len(answers.Waiting._fields)
    looked = answers.Looked(*words[:width])
    waiting = readable("waiting adapter", (words[i : i + each] for i in range(width, len(words), each)), _waiting)
    return View(
        now_ms=int(looked.now_ms),
        waiting=tuple(waiting),
        next_due_ms=None if looked.next_due_ms == "-" else int(looked.next_due_ms),
        ready_count=int(looked.ready),
        apart=looked.apart == "1",
        suspects=int(looked.suspects),
        behind=looked.behind == "1",
    )


def _waiting(words: list[str]) -> WaitingAdapter:
    one = answers.Waiting(*words)
    return WaitingAdapter(
        ref=one.ref, since_ms=int(float(one.since_ms)), depth=int(one.depth), served=float(one.served)
    )


def state(text: bytes | None) -> JobState | MalformedEntry | None:
    """One answer of states.lua."""
    if text is None:
        return None
    return _state(text.decode(errors="replace")) or MalformedEntry(
        f"the job's record says state {text!r:.60}, which is none of ours"
    )


def _state(text: str) -> JobState | None:
    return JobState(text) if text in _STATES else None


def settled(answer: str, job_id: str) -> Settled:
    """One answer of settle.lua."""
    outcome, _, state = answer.partition(" ")
    return Settled(job_id, cast("Literal['settled', 'stale']", outcome), "" if state == "-" else state)


def record(raw: Any) -> dict[str, str | bytes] | None:
    """A job's hash: text, but for ``detail``. Raises MalformedEntry where there is something else."""
    if not raw:
        return None
    fields = text_map(raw)
    return {**fields, "detail": raw[b"detail"]} if b"detail" in raw else {**fields}


def result(values: Sequence[bytes | None]) -> dict[str, str | bytes] | None:
    """One answer of results.lua: text, but for ``detail``."""
    if values[0] is None:
        return None
    return {
        name: value if name == "detail" else value.decode(errors="replace")
        for name, value in zip(RESULT_FIELDS, values, strict=True)
        if value is not None
    }


def notices(entry_id: str, fields: Mapping[str, bytes], keys: Keys) -> Iterator[Notice]:
    """One entry of an inbox: by job id a state, or an answer (settle.lua)."""
    for job_id, value in fields.items():
        try:
            yield _notice(entry_id, keys.full_id(job_id), value)
        except UNREADABLE as error:  # still a hint; and without it the reader would not get past the entry
            step_over("notice", value, error)
            yield Notice(entry_id, keys.full_id(job_id), None)


def _notice(entry_id: str, job_id: str, value: bytes) -> Notice:
    head, _, rest = value.partition(b"\n")
    state, *values = head.decode().split("\t")
    return Notice(entry_id, job_id, JobState(state), _answer((state, *values), rest) if values else None)


def _answer(values: Sequence[str], rest: bytes) -> dict[str, str | bytes]:
    record: dict[str, str | bytes] = dict(zip(answers.ANSWER, values, strict=True))
    text_bytes = int(record.pop("text_bytes"))
    record["text"], record["detail"] = rest[:text_bytes].decode(), rest[text_bytes:]
    return record


def token_item(entry_id: str, fields: Mapping[str, bytes]) -> StreamItem:
    """One entry of a job's token stream; one that cannot be read says no more than where to read on."""
    try:
        return _token_item(entry_id, {name: value.decode() for name, value in fields.items()})
    except UNREADABLE as error:
        step_over("entry of a token stream", fields, error)
        return StreamItem(entry_id, "unreadable", 0)


def _token_item(entry_id: str, text: Mapping[str, str]) -> StreamItem:
    kind = cast("Literal['delta', 'restart', 'end']", text["kind"])
    return StreamItem(
        entry_id=entry_id,
        kind=kind,
        attempt=int(text["attempt"]),
        offset=int(text.get("offset", 0)),
        text=text.get("text", ""),
        token_ids=tuple(map(int, text.get("token_ids", "").split())),
        state=JobState(text["state"]) if kind == "end" else None,
        more=codec.decode_more(text.get("more", "")),
    )


def control(fields: Mapping[str, bytes], keys: Keys) -> dict[str, str]:
    """A control request, with its job id made full."""
    request = {name: value.decode(errors="replace") for name, value in fields.items()}
    if "job_id" in request:
        request["job_id"] = keys.full_id(request["job_id"])
    return request


def dead_page(answer: list[Any], keys: Keys) -> DeadPage:
    """The answer of dead.lua."""
    cursor, *entries = answer
    if not isinstance(cursor, bytes):
        raise MalformedEntry("a page of dead letters cannot be read: it does not begin with where to go on")
    return DeadPage(
        tuple(readable("dead letter", entries, partial(_letter, keys=keys))), cursor.decode(errors="replace")
    )


def _letter(entry: list[bytes], keys: Keys) -> DeadLetter:
    letter = answers.Letter(*(part.decode(errors="replace") for part in entry))
    return DeadLetter(
        job_id=keys.full_id(letter.id),
        ref=letter.ref,
        agent=letter.agent,
        reason=letter.reason,
        message=letter.message,
        attempts=int(letter.attempts),
        lost=int(letter.lost),
        died_ms=int(letter.died_ms),
        redriven_as=keys.full_id(letter.redriven) if letter.redriven else "",
    )


def limits(answer: list[bytes]) -> Limits:
    """The answer of limits.lua. Raises MalformedEntry."""
    return required("the limits", lambda: _limits(answer))


def _limits(answer: list[bytes]) -> Limits:
    stored = answers.Limits(*(value.decode() for value in answer))
    max_depth, max_inflight, agent_window = (
        int(text) if text else None for text in (stored.max_depth, stored.max_inflight, stored.agent_window)
    )
    return Limits(
        max_depth=max_depth,
        max_inflight=max_inflight,
        agent_window=agent_window,
        weight=float(stored.weight) if stored.weight else None,
    )
