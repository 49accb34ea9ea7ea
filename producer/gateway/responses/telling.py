"""Telling: a response's events as they are sent, from its job as it is read: live, or once more after a number."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator
from dataclasses import dataclass

from lorapool.producer.client.handle import JobHandle
from lorapool.producer.gateway.errors import of_error
from lorapool.producer.gateway.following import followed
from lorapool.producer.gateway.responses import answer
from lorapool.producer.gateway.responses.events import Event, Narrator, since
from lorapool.shared.errors import JobCancelled, JobExpired, JobFailed
from lorapool.shared.job import JobState, Result
from lorapool.shared.responses.response_record import ResponseRecord


@dataclass(frozen=True, slots=True)
class Telling:
    """``after``: the number of the last event that the reader has; -1 is none."""

    record: ResponseRecord
    handle: JobHandle
    after: int = -1

    async def events(self, ping_s: float) -> AsyncGenerator[bytes, None]:
        """As bytes to be sent; a sign of life now and then while nothing comes."""
        narrator = Narrator(self.record)
        for event in self._fresh(narrator.opening()):
            yield event
        try:
            async for batch in followed([self.handle], ping_s):
                for _, what in batch:
                    for event in self._fresh(
                        narrator.finish(what) if isinstance(what, Result) else narrator.tell(what)
                    ):
                        yield event
                if not batch:
                    yield _encoded(narrator.ping())
        except (JobFailed, JobCancelled, JobExpired) as error:
            for event in self._fresh(narrator.fail(self._ended(error))):
                yield event
        except Exception as error:  # noqa: BLE001 - the stream has begun: whatever it is, it is told within
            yield _encoded(narrator.error(of_error(error)))

    def _fresh(self, events: list[Event]) -> list[bytes]:
        return [_encoded(event) for told in events if (event := since(told, self.after)) is not None]

    def _ended(self, error: JobFailed | JobCancelled | JobExpired) -> dict[str, object]:
        if isinstance(error, JobCancelled):
            return answer.unfinished(self.record, JobState.CANCELLED)
        if isinstance(error, JobFailed):
            return answer.failed(self.record, error.error, error.message)
        return answer.failed(self.record, "JobExpired", answer.LATE)


def _encoded(event: Event) -> bytes:
    kind, number = event["type"], event["sequence_number"]
    return f"event: {kind}\nid: {number}\ndata: {json.dumps(event)}\n\n".encode()
