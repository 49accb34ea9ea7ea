"""What scripts are given: each word of the protocol in its field, clean of what cannot travel, and never too much."""

from __future__ import annotations

from dataclasses import replace

import pytest

from lorapool.shared import codec
from lorapool.shared.errors import InvalidRequest
from lorapool.shared.job import Job, More, TokenLogprob
from lorapool.shared.queue import arguments
from lorapool.shared.queue.protocol import Delta, JobLease, Settlement
from lorapool.shared.scripts import records


def settled(end: Settlement) -> dict[str, object]:
    return dict(arguments.of_settlement(end)._asdict())


def enqueued(payload: bytes) -> records.Enqueue:
    return arguments.of_job(job())._replace(payload=payload)


def job(number: int = 1, prompt: str = "hello you", **fields: object) -> Job:
    return Job.parse(id=f"job{number}", ref="cfo@1", agent="board", prompt=prompt, client="c1", **fields)


def test_a_job() -> None:
    """Each under its name; the request itself comes back as it was."""
    asked = job(priority="high", stream=True, delay_ms=5, deadline_ms=900, params={"seed": 7, "max_new_tokens": 10})
    given = arguments.of_job(asked)._asdict()
    payload = given.pop("payload")
    assert isinstance(payload, bytes)
    assert asked == codec.decode_job(payload)
    assert {
        "id": "job1", "fingerprint": codec.fingerprint(asked), "ref": "cfo@1", "agent": "board", "client": "c1",
        "priority": "high", "stream": 1, "seed": 7, "cost": len("hello you") // 4 + 10, "delay_ms": 5,
        "deadline_ms": 900, "key": "",
    } == given  # fmt: skip


def test_a_job_without_what_it_need_not_have() -> None:
    """No client, no deadline: empty and 0, for Lua has no None."""
    given = arguments.of_job(job().model_copy(update={"client": None}))._asdict()
    assert ("", 0, 0) == (given["client"], given["deadline_ms"], given["delay_ms"])


def test_a_job_whose_id_is_none() -> None:
    with pytest.raises(InvalidRequest):
        arguments.of_job(job().model_copy(update={"id": "no id\n"}))


def test_a_settlement() -> None:
    """Each under its name; only a retry draws when to come back."""
    end = Settlement(
        "0.job1", "w1.1", "succeeded", "E", "why", "text", "length", 5, 6, 7, 8, True, "cpu", "float32", b"detail"  # noqa: FBT003
    )  # fmt: skip
    assert {
        "id": "job1", "lease": "w1.1", "outcome": "succeeded", "error": "E", "message": "why", "text": "text",
        "finish_reason": "length", "prompt_tokens": 5, "completion_tokens": 6, "load_ms": 7, "first_token_ms": 8,
        "resident": 1, "device": "cpu", "dtype": "float32", "detail": b"detail", "jitter": 0,
    } == settled(end)  # fmt: skip
    drawn = {arguments.of_settlement(end._replace(outcome="retry"))[-1] for _ in range(20)}
    assert len(drawn) > 1
    assert "" == settled(end._replace(first_token_ms=None))["first_token_ms"]


def test_what_cannot_be_sent_is_cleaned() -> None:
    """A lone surrogate in a text or a message would end the connection that writes it."""
    end = Settlement("0.job1", "w1.1", "failed", message="\ud800 why\0", text="a\ud800")
    for value in arguments.of_settlement(end):
        assert isinstance(value, bytes | int | float) or value.encode() is not None
    for value in arguments.of_delta(Delta("0.job1", "w1.1", 1, 0, "\udfff", (1,))):
        assert isinstance(value, int) or str(value).encode() is not None


def test_a_delta() -> None:
    """Counted, and with its ids in one text; what it brings beside text is JSON, or nothing."""
    delta = Delta("0.job1", "w1.1", 2, 4, "so", (11, 12))
    assert ("job1", "w1.1", 2, 4, 2, "so", "11 12", "") == arguments.of_delta(delta)
    told = More((TokenLogprob(id=11, text=b"s", logprob=-0.5),))
    assert '{"logprobs":[[11,"s",-0.5,[]]]}' == arguments.of_delta(replace(delta, more=told))[-1]


def test_what_is_held() -> None:
    assert ["job1", "w1.1", "job2", "w1.2"] == [
        *arguments.of_held([JobLease("0.job1", "w1.1"), JobLease("job2", "w1.2")])
    ]


def test_a_call_has_a_bound_of_jobs() -> None:
    """None is lost or changes places."""
    numbers = list(range(2 * arguments.MAX_JOBS + 1))
    assert [64, 64, 1] == [len(part) for part in arguments.chunks(numbers)]
    assert numbers == [number for part in arguments.chunks(numbers) for number in part]
    parts = [*arguments.parts((number, enqueued(b"p")) for number in numbers)]
    assert [64, 64, 1] == [len(part) for part in parts]
    assert numbers == [number for part in parts for number, _ in part]


def test_a_call_has_a_bound_of_bytes() -> None:
    """Payloads that do not fit together go apart; one that is as large as a call goes alone."""
    third = b"p" * (arguments.MAX_CALL_BYTES // 3)
    sizes = [third, third, third, third, b"p" * arguments.MAX_CALL_BYTES, third]
    parts = [*arguments.parts((number, enqueued(payload)) for number, payload in enumerate(sizes))]
    assert [[0, 1, 2], [3], [4], [5]] == [[number for number, _ in part] for part in parts]
    assert [] == [*arguments.parts([])]
