"""Answer: what became of one line, as it is written into the output or the error file; and the door that words it.

The form is OpenAI's. Knows no files and no queue.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any, Protocol

from lorapool.producer.batches.line import Line
from lorapool.producer.client.request import Request
from lorapool.shared.batches.batch_record import BatchRecord
from lorapool.shared.job import Result

EXPIRED, CANCELLED = "batch_expired", "batch_cancelled"
_GIVEN_UP = {
    EXPIRED: "the batch's time was over before this request was answered",
    CANCELLED: "the batch was cancelled before this request was answered",
}


class Door(Protocol):
    """How the body of a line becomes requests of the queue, and their results an answer."""

    async def requests(self, batch: BatchRecord, body: Mapping[str, Any]) -> list[Request]:
        """By exact refs, at least one. Raises what is wrong with it, in the words of ``refusal``."""
        ...

    def answer(
        self, batch: BatchRecord, body: Mapping[str, Any], results: Sequence[Result], answer_id: str
    ) -> dict[str, Any]:
        """What the endpoint would answer; the results stand in the order of the requests."""
        ...

    def refusal(self, error: BaseException, body: Mapping[str, Any]) -> tuple[int, dict[str, Any]]:
        """Status and body of what the endpoint would answer instead."""
        ...


@dataclass(frozen=True, slots=True)
class Answer:
    """``text`` is a line of the output file if ``ok``, else of the error file; ``jobs`` are those it came of."""

    number: int
    ok: bool
    text: bytes
    jobs: Sequence[str] = ()
    prompt_tokens: int = 0
    completion_tokens: int = 0
    ended_early: bool = False


def answer_id(batch_id: str, number: int) -> str:
    """The same whenever the line is asked."""
    return blake2b(f"{batch_id}\0{number}".encode(), digest_size=12).hexdigest()


def job_id(batch_id: str, number: int, index: int) -> str:
    """Of a line's request: a second feeder that asks the same finds what is there."""
    return f"{batch_id}-{number}-{index}"


def answered(
    batch: BatchRecord, line: Line, status: int, body: Mapping[str, Any], results: Sequence[Result] = ()
) -> Answer:
    """The line's own answer, good or bad."""
    request_id = results[0].job_id if results else f"req_{answer_id(batch.id, line.number)}"
    response = {"status_code": status, "request_id": request_id, "body": body}
    return Answer(
        line.number,
        status < 400,
        _text(batch, line, response, None),
        tuple(result.job_id for result in results),
        sum(result.usage.prompt_tokens for result in results),
        sum(result.usage.completion_tokens for result in results),
    )


def given_up(batch: BatchRecord, line: Line, why: str) -> Answer:
    """There is none: the batch ended before it."""
    text = _text(batch, line, None, {"code": why, "message": _GIVEN_UP[why]})
    return Answer(line.number, ok=False, text=text, ended_early=why == EXPIRED)


def _text(batch: BatchRecord, line: Line, response: object, error: object) -> bytes:
    request_id = f"batch_req_{answer_id(batch.id, line.number)}"
    record = {"id": request_id, "custom_id": line.custom_id, "response": response, "error": error}
    return json.dumps(record, separators=(",", ":")).encode() + b"\n"
