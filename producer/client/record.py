"""A job's stored record (its Redis hash) read as a state, a Result, or the typed error of how it ended.

Knows the field names that the queue's scripts write. Knows neither Redis nor waiting.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from lorapool.shared import codec
from lorapool.shared.errors import (
    Fate,
    JobCancelled,
    JobExpired,
    JobFailed,
    JobLost,
    LorapoolError,
    ResultExpired,
    UnknownJob,
)
from lorapool.shared.job import JobState, Result, Timings, Usage
from lorapool.shared.malformed import number, required
from lorapool.shared.server.keys import issued_ms
from lorapool.shared.server.terms import Terms

RESULT_TTL_S = Terms().result_ttl_ms / 1000
Record = Mapping[str, str | bytes]

_AS_STORED = ("text", "finish_reason", "digest", "agent", "attempts", "worker", "device", "dtype", "seed")
_COUNTED = tuple(Usage.model_fields)


def state_of(record: Record) -> JobState:
    """Where the job is. Raises MalformedEntry."""
    return required("the job's record", lambda: JobState(_text(record, "state")))


def result_of(job_id: str, record: Record) -> Result:
    """The Result of a succeeded job; raises JobFailed, JobCancelled or JobExpired for one that ended otherwise, and
    MalformedEntry for a record that is none."""
    state = state_of(record)
    if state is JobState.SUCCEEDED:
        return required(f"the record of job {job_id}", lambda: _result(job_id, record))
    raise _ending(job_id, state, record)


def gone(job_id: str, *, alive_at: float | None) -> LorapoolError:
    """The error for a job that has no record. ``alive_at``: when it was last known not to have ended (``time.time``),
    0 if it had ended when it was first heard of, None if it was never heard of. A record outlives that by its TTL."""
    now = time.time()
    if alive_at is not None and now - alive_at < RESULT_TTL_S:
        return JobLost(
            f"job {job_id} was accepted, and the server has no record of it or of its answer any more: it restarted "
            f'without its data, or was emptied; submit it again, with the same id, or say on_lost="resubmit"'
        ).of_job(job_id, Fate.UNKNOWN)
    issued = issued_ms(job_id)
    if alive_at is not None or (issued is not None and now - issued / 1000 > RESULT_TTL_S):
        return ResultExpired(f"job {job_id} is gone: results are kept for a limited time after the end").of_job(
            job_id, Fate.QUEUED
        )
    unknown = UnknownJob(f"job {job_id} is not known: never accepted in this pool, or its result has expired")
    return unknown.of_job(job_id, None)


def _ending(job_id: str, state: JobState, record: Record) -> LorapoolError:
    return _ended(job_id, state, record).of_job(job_id, Fate.QUEUED)


def _ended(job_id: str, state: JobState, record: Record) -> LorapoolError:
    message = _text(record, "message")
    because = f": {message}" if message else ""
    if state is JobState.CANCELLED:
        return JobCancelled(f"job {job_id} was cancelled{because}")
    if state is JobState.EXPIRED:
        return JobExpired(f"job {job_id} expired: its deadline passed before it ended")
    error, attempts = _text(record, "error") or "Unknown", int(number(record.get("attempts")))
    tries = f" after {attempts} attempts" if attempts > 1 else ""
    text = f"job {job_id} on {_text(record, 'ref')} failed{tries}: {error}{because}"
    return JobFailed(text, job_id=job_id, error=error, message=message, attempts=attempts)


def _result(job_id: str, record: Record) -> Result:
    """In one call of pydantic, which reads numbers from their text: half the time of one model after another."""
    detail = _detail(record)
    fields: dict[str, Any] = {name: record.get(name, "") for name in _AS_STORED}
    fields["usage"] = {name: record.get(name) or 0 for name in _COUNTED}
    fields |= {"job_id": job_id, "adapter": record.get("ref", ""), "timings": _timings(record)}
    fields |= {"resident": record.get("resident") == "1", **detail._asdict()}
    return Result.model_validate(fields)


def timings_of(record: Record) -> Timings:
    """Milliseconds between the record's stamps; None where the job has not got so far."""
    return required("the job's record", lambda: Timings.model_validate(_timings(record)))


def _timings(record: Record) -> dict[str, Any]:
    submitted = _int(record, "submitted_ms")
    return {
        "queued_ms": _between(submitted, record, "started_ms"),
        "load_ms": record.get("load_ms") or None,
        "first_token_ms": _between(submitted, record, "first_token_ms"),
        "total_ms": _between(submitted, record, "finished_ms"),
    }


def _between(submitted: int, record: Record, name: str) -> int | None:
    stamp = _int(record, name)
    return max(0, stamp - submitted) if stamp else None


def _detail(record: Record) -> codec.Detail:
    detail = record.get("detail", b"")
    return codec.decode_detail(detail) if isinstance(detail, bytes) and detail else codec.Detail()


def _text(record: Record, name: str) -> str:
    value = record.get(name, "")
    return value.decode(errors="replace") if isinstance(value, bytes) else value


def _int(record: Record, name: str) -> int:
    return int(_text(record, name) or 0)
