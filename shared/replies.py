"""Replies: what the scripts and streams answer, read into the protocol's words.

The other half of the scripts' ``returns`` lines. Pure; knows no connection.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal, cast

from lorapool.shared.errors import (
    AdapterClosed,
    AdapterNotReady,
    Fate,
    JobConflict,
    LorapoolError,
    QueueFull,
    UnknownAdapter,
)
from lorapool.shared.job import Job, JobState
from lorapool.shared.keys import Keys
from lorapool.shared.protocol import (
    Claim,
    ClaimedJob,
    DeadLetter,
    DeadPage,
    Enqueued,
    Limits,
    Notice,
    Settled,
    StreamItem,
    View,
    WaitingAdapter,
)
from lorapool.shared.server import text_map

RESULT_FIELDS = (
    "state",
    "ref",
    "digest",
    "agent",
    "seed",
    "attempts",
    "worker",
    "submitted_ms",
    "started_ms",
    "first_token_ms",
    "finished_ms",
    "load_ms",
    "resident",
    "device",
    "dtype",
    "text",
    "detail",
    "finish_reason",
    "prompt_tokens",
    "completion_tokens",
    "error",
    "message",
)

_ANSWER_FIELDS = tuple(
    name for name in RESULT_FIELDS if name not in {"text", "detail", "error", "message"}
)  # of a notice, in this order


def enqueued(answer: str, job: Job, keys: Keys) -> Enqueued | LorapoolError:
    """One answer of enqueue.lua."""
    word, _, rest = answer.partition(" ")
    full_id = keys.full_id(job.id)
    match word:
        case "new" | "same":
            return Enqueued(full_id, JobState(rest), created=word == "new")
        case "conflict":
            conflict = JobConflict(f"job {full_id} exists with another request; use another id, or none")
            return conflict.of_job(full_id, Fate.NOT_QUEUED)
    return refusal(answer, job.ref, job.agent).of_job(full_id, Fate.NOT_QUEUED)


def refusal(answer: str, ref: str, agent: str) -> LorapoolError:
    """Why an adapter takes no job of that agent (admission.lua)."""
    word, _, rest = answer.partition(" ")
    match word:
        case "unknown":
            return UnknownAdapter(f"adapter {ref} takes no jobs in this pool: not registered, or not validated yet")
        case "pending":
            return AdapterNotReady(f"adapter {ref} is not validated yet")
        case "full":
            return _queue_full(rest, ref, agent)
    return AdapterClosed(f"adapter {ref} is {word} and takes no new jobs")


def _queue_full(rest: str, ref: str, agent: str) -> QueueFull:
    scope, depth, limit, retry_ms = rest.split()
    whose = f"agent {agent} has" if scope == "agent" else "there are"
    where = "in the pool" if scope == "pool" else f"on {ref}"
    retry_s = int(retry_ms) / 1000
    return QueueFull(
        f"{whose} {depth} jobs waiting {where}, the {scope} limit is {limit}; try again in {retry_s:g} s",
        scope=scope,
        depth=int(depth),
        limit=int(limit),
        retry_after_s=retry_s,
    )


def claim(answer: list[bytes], lease: str, keys: Keys) -> Claim:
    """The answer of claim.lua."""
    heads, payloads = answer[1::2], answer[2::2]
    jobs = (_claimed(head.decode(), payload, lease, keys) for head, payload in zip(heads, payloads, strict=True))
    return Claim(tuple(jobs), view(answer[0].decode()))


def _claimed(head: str, payload: bytes, lease: str, keys: Keys) -> ClaimedJob:
    bare, ref, digest, agent, attempt, lost, fence, seed, submitted, claimed, deadline = head.split(" ")
    return ClaimedJob(
        keys.full_id(bare),
        lease,
        ref,
        "" if digest == "-" else digest,
        agent,
        int(attempt),
        int(lost),
        int(fence),
        int(seed),
        int(submitted),
        int(claimed),
        None if deadline == "-" else int(deadline),
        payload,
    )


def view(text: str) -> View:
    """The text of view.lua."""
    now, due, ready, suspects, *rest = text.split(" ")
    waiting = [_waiting(*rest[i : i + 4]) for i in range(0, len(rest), 4)]
    next_due_ms = None if due == "-" else int(due)
    return View(int(now), tuple(waiting), next_due_ms, int(ready), int(suspects))


def _waiting(ref: str, since: str, depth: str, served: str) -> WaitingAdapter:
    return WaitingAdapter(ref, int(float(since)), int(depth), float(served))


def settled(answer: str, job_id: str) -> Settled:
    """One answer of settle.lua."""
    outcome, _, state = answer.partition(" ")
    return Settled(job_id, cast("Literal['settled', 'stale']", outcome), "" if state == "-" else state)


def record(found: Mapping[bytes, bytes]) -> dict[str, str | bytes] | None:
    """A job's hash: text, but for ``detail``."""
    if not found:
        return None
    return {name.decode(): value if name == b"detail" else value.decode() for name, value in found.items()}


def result(values: Sequence[bytes | None]) -> dict[str, str | bytes] | None:
    """One answer of results.lua: text, but for ``detail``."""
    if values[0] is None:
        return None
    return {
        name: value if name == "detail" else value.decode()
        for name, value in zip(RESULT_FIELDS, values, strict=True)
        if value is not None
    }


def notices(entry_id: str, fields: Mapping[str, bytes], keys: Keys) -> Iterator[Notice]:
    """One entry of an inbox: by job id a state, or an answer (settle.lua)."""
    for job_id, value in fields.items():
        head, _, rest = value.partition(b"\n")
        state, *values = head.decode().split("\t")
        record = _answer(state, values, rest) if values else None
        yield Notice(entry_id, keys.full_id(job_id), JobState(state), record)


def _answer(state: str, values: list[str], rest: bytes) -> dict[str, str | bytes]:
    text_bytes = int(values.pop())
    record: dict[str, str | bytes] = dict(zip(_ANSWER_FIELDS, (state, *values), strict=True))
    record["text"], record["detail"] = rest[:text_bytes].decode(), rest[text_bytes:]
    return record


def token_item(entry_id: str, fields: Mapping[str, bytes]) -> StreamItem:
    """One entry of a job's token stream."""
    text = {name: value.decode() for name, value in fields.items()}
    kind = cast("Literal['delta', 'restart', 'end']", text["kind"])
    return StreamItem(
        entry_id=entry_id,
        kind=kind,
        attempt=int(text["attempt"]),
        offset=int(text.get("offset", 0)),
        text=text.get("text", ""),
        token_ids=tuple(map(int, text.get("token_ids", "").split())),
        state=JobState(text["state"]) if kind == "end" else None,
    )


def control(fields: Mapping[str, bytes], keys: Keys) -> dict[str, str]:
    """A control request, with its job id made full."""
    request = {name: value.decode() for name, value in fields.items()}
    if "job_id" in request:
        request["job_id"] = keys.full_id(request["job_id"])
    return request


def numbers(answer: Any) -> dict[str, int | float]:
    """A hash of counters."""
    return {name: float(value) if "." in value else int(value) for name, value in sorted(text_map(answer).items())}


def dead_page(answer: list[Any], keys: Keys) -> DeadPage:
    """The answer of dead.lua."""
    cursor, *entries = answer
    return DeadPage(tuple(_letter([field.decode() for field in entry], keys) for entry in entries), cursor.decode())


def _letter(entry: list[str], keys: Keys) -> DeadLetter:
    bare, ref, agent, reason, message, attempts, lost, died, again = entry
    numbers = (int(attempts), int(lost), int(died))
    return DeadLetter(keys.full_id(bare), ref, agent, reason, message, *numbers, keys.full_id(again) if again else "")


def limits(answer: list[bytes]) -> Limits:
    """The answer of limits.lua."""
    depth, inflight, window, weight = (value.decode() for value in answer)
    max_depth, max_inflight, agent_window = (int(text) if text else None for text in (depth, inflight, window))
    return Limits(max_depth, max_inflight, agent_window, float(weight) if weight else None)
