"""A stored record becomes a state, a result, or the error that says how the job ended."""

from __future__ import annotations

import time

import pytest

from lorapool.producer.client.record import RESULT_TTL_S, Record, gone, result_of, state_of, timings_of
from lorapool.shared.codec import encode_detail
from lorapool.shared.errors import (
    Fate,
    JobCancelled,
    JobExpired,
    JobFailed,
    JobLost,
    LorapoolError,
    MalformedEntry,
    ResultExpired,
    UnknownJob,
)
from lorapool.shared.job import JobState
from lorapool.shared.server.keys import new_job_id

SUCCEEDED: Record = {
    "state": "succeeded", "ref": "cfo@1", "text": "Cash first.", "finish_reason": "length", "digest": "d" * 64,
    "agent": "board", "attempts": "2", "worker": "w1", "device": "cpu", "dtype": "float32", "seed": "7",
    "prompt_tokens": "5", "completion_tokens": "3", "resident": "1", "load_ms": "40",
    "submitted_ms": "1000", "started_ms": "1200", "first_token_ms": "1500", "finished_ms": "2000",
    "detail": encode_detail([4, 5, 6], [-0.5, -1.0, -1.5]),
}  # fmt: skip


def failed(**fields: str) -> Record:
    return {"state": "failed", "ref": "cfo@1", "error": "Broken", "message": "no room", "attempts": "1"} | fields


def raised(record: Record) -> LorapoolError:
    with pytest.raises(LorapoolError) as caught:
        result_of("0.j1", record)
    return caught.value


def test_every_field_of_a_result_is_the_records() -> None:
    """None is left at its default: adapter, text, tokens, who gave it, and after how many attempts."""
    result = result_of("0.j1", SUCCEEDED)
    assert ("0.j1", "cfo@1", "Cash first.", "length") == (
        result.job_id, result.adapter, result.text, str(result.finish_reason.value)
    )  # fmt: skip
    assert ("d" * 64, "board", 2, "w1", "cpu", "float32", 7, True) == (
        result.digest, result.agent, result.attempts, result.worker, result.device, result.dtype, result.seed,
        result.resident,
    )  # fmt: skip
    assert (5, 3) == (result.usage.prompt_tokens, result.usage.completion_tokens)
    assert (4, 5, 6) == result.token_ids
    assert (-0.5, -1.0, -1.5) == result.logprobs


def test_timings_are_counted_from_the_submission() -> None:
    timings = result_of("0.j1", SUCCEEDED).timings
    assert (200, 40, 500, 1000) == (timings.queued_ms, timings.load_ms, timings.first_token_ms, timings.total_ms)
    assert timings == timings_of(SUCCEEDED)


def test_what_has_not_happened_has_no_time() -> None:
    """A job that waits has none of the three; a stamp before the submission (a clock that was set back) is no time."""
    waiting = timings_of({"state": "queued", "submitted_ms": "1000"})
    assert (None, None, None, None) == (
        waiting.queued_ms, waiting.load_ms, waiting.first_token_ms, waiting.total_ms
    )  # fmt: skip
    assert 0 == timings_of({"submitted_ms": "1000", "started_ms": "900"}).queued_ms


def test_an_answer_without_details_has_no_tokens() -> None:
    """As it comes with a notice: the text is there, token ids and log probabilities are not."""
    short = result_of("0.j1", {name: value for name, value in SUCCEEDED.items() if name != "detail"})
    assert ("Cash first.", (), None) == (short.text, short.token_ids, short.logprobs)


@pytest.mark.parametrize("state", list(JobState))
def test_each_state_is_read(state: JobState) -> None:
    assert state is state_of({"state": state.value})
    assert state is state_of({"state": state.value.encode()})


@pytest.mark.parametrize(
    ("record", "kind", "words"),
    [
        (failed(), JobFailed, ["0.j1", "cfo@1", "Broken: no room"]),
        (failed(attempts="3"), JobFailed, ["after 3 attempts"]),
        (failed(error=""), JobFailed, ["Unknown"]),
        ({"state": "cancelled", "message": "changed my mind"}, JobCancelled, ["0.j1", "changed my mind"]),
        ({"state": "expired"}, JobExpired, ["0.j1", "deadline"]),
    ],
)
def test_any_other_end_is_an_error(record: Record, kind: type[LorapoolError], words: list[str]) -> None:
    """Of its own kind, with the job's id and why; the job was queued, whatever became of it."""
    error = raised(record)
    assert type(error) is kind
    assert [] == [word for word in words if word not in str(error)]
    assert ("0.j1", Fate.QUEUED) == (error.job_id, error.fate)


def test_a_failure_says_what_failed_in_fields() -> None:
    error = raised(failed(attempts="3"))
    assert isinstance(error, JobFailed)
    assert ("Broken", "no room", 3) == (error.error, error.message, error.attempts)


@pytest.mark.parametrize("record", [{}, {"state": "merry"}, {"state": b"\xff"}, dict(SUCCEEDED) | {"attempts": "many"}])
def test_what_is_no_record_is_said_to_be_none(record: Record) -> None:
    with pytest.raises(MalformedEntry):
        result_of("0.j1", record)


def test_a_job_without_record() -> None:
    """Lost where it was alive within a result's lifetime, expired where its record has outlived that, else unknown."""
    now = time.time()
    lost = gone("0.mine", alive_at=now - 5)
    assert (JobLost, Fate.UNKNOWN, "0.mine") == (type(lost), lost.fate, lost.job_id)
    assert ResultExpired is type(gone("0.mine", alive_at=now - RESULT_TTL_S - 5))
    assert ResultExpired is type(gone("0.mine", alive_at=0))
    assert UnknownJob is type(gone("0.mine", alive_at=None))
    assert UnknownJob is type(gone(f"0.{new_job_id()}", alive_at=None)), "an id of today has not expired"
