"""Stored: a response that was made before, found again by its id at any replica, for the caller whose it is."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from starlette.requests import Request as HttpRequest

from lorapool.producer.client.client import Client
from lorapool.producer.client.handle import JobHandle
from lorapool.producer.client.record import Record, result_of, state_of
from lorapool.producer.gateway.caller import Caller, caller_of
from lorapool.producer.gateway.errors import ApiError
from lorapool.producer.gateway.responses import answer
from lorapool.producer.gateway.responses.items import Item, input_items
from lorapool.shared.errors import JobLost, ResultExpired, UnknownJob
from lorapool.shared.job import NAME_PATTERN, JobState
from lorapool.shared.responses.response_record import ResponseRecord

_ID = re.compile(rf"{answer.PREFIX}({NAME_PATTERN})")


@dataclass(frozen=True, slots=True)
class Stored:
    """``job``: the job's record at the time."""

    record: ResponseRecord
    handle: JobHandle
    job: Record

    @property
    def state(self) -> JobState:
        return state_of(self.job)

    def body(self) -> dict[str, Any]:
        """The response as it stands."""
        state = self.state
        if state is JobState.SUCCEEDED:
            return answer.finished(self.record, result_of(self.handle.id, self.job))
        if state is JobState.FAILED:
            return answer.failed(self.record, _text(self.job, "error"), _text(self.job, "message"))
        if state is JobState.EXPIRED:
            return answer.failed(self.record, "JobExpired", answer.LATE)
        return answer.unfinished(self.record, state)

    def turn(self) -> list[Item]:
        """All that a next turn goes on from: what was put in, then what was answered."""
        body = self.body()
        if body["status"] not in ("completed", "incomplete"):
            raise ApiError(
                400,
                f"previous_response_id = {body['id']!r}: it is {body['status']}, expected one that is completed",
                param="previous_response_id",
            )
        return [*self.record.items, *input_items(body["output"])]


async def stored(http: HttpRequest) -> Stored:
    """The one that the path names. Raises ApiError: 404 for one that is nobody's, or not the caller's."""
    response_id = http.path_params["id"]
    found = await find(http.app.state.client, caller_of(http), response_id)
    if found is None:
        message = f"no response {response_id[:160]!r}: never stored here, deleted, or kept no longer"
        raise ApiError(404, message, code="not_found")
    return found


async def find(client: Client, caller: Caller, response_id: str) -> Stored | None:
    """None for one that is nobody's, or not the caller's."""
    match = _ID.fullmatch(response_id)
    record = await client.responses.get(match[1]) if match else None
    if record is None or not caller.may_read(record.agent):
        return None
    handle = client.get(record.id)
    try:
        return Stored(record, handle, await handle.record())
    except (UnknownJob, ResultExpired, JobLost):
        return None


def _text(record: Record, name: str) -> str:
    value = record.get(name, "")
    return value.decode(errors="replace") if isinstance(value, bytes) else value
