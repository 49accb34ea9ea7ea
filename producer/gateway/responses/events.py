"""Narrator: a response's stream of events, made of the pieces of its job's answer.

An event's number is a place: each event counts one, a delta its characters. So the numbers do not depend on how the
text came in pieces, which differs from one reading to the next, and a stream is gone on with after any number, at any
replica, nothing twice. Pure: knows neither HTTP nor the queue, and no time.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from lorapool.producer.gateway.cursor import Piece
from lorapool.producer.gateway.errors import ApiError
from lorapool.producer.gateway.responses import answer
from lorapool.producer.gateway.responses.items import Item
from lorapool.shared.job import FinishReason, JobState, Result, TokenLogprob
from lorapool.shared.responses.response_record import ResponseRecord
from lorapool.shared.tools import ToolCall, ToolCallDelta

Event = dict[str, Any]


def since(event: Event, after: int) -> Event | None:
    """What of an event comes after that number: of a delta, the characters that do."""
    number, delta = event["sequence_number"], event.get("delta", "")
    if number <= after:
        return None
    return {**event, "delta": delta[max(0, after - number + len(delta)) :]} if delta else event


@dataclass(slots=True)
class _Message:
    """The text, once it began, at its place in the output."""

    at: int
    text: str = ""
    logprobs: list[TokenLogprob] = field(default_factory=list)


@dataclass(slots=True)
class _Call:
    """A call that began, at its place in the output."""

    at: int
    id: str
    name: str
    arguments: str = ""


class Narrator:
    """Of one response, told from its beginning."""

    def __init__(self, record: ResponseRecord) -> None:
        self._record = record
        self._counted = 0
        self._waits = record.background  # and nothing has come yet
        self._output: list[Item] = []  # as it stands at each item's end
        self._message: _Message | None = None
        self._calls: dict[int, _Call] = {}
        self._silent: list[TokenLogprob] = []  # of tokens that have brought no text yet

    def opening(self) -> list[Event]:
        """What comes at once."""
        state = JobState.QUEUED if self._waits else JobState.RUNNING
        created = self._event("response.created", response=answer.unfinished(self._record, state))
        return [created, self._event(**self._standing())]

    def tell(self, piece: Piece) -> list[Event]:
        """What one piece brings."""
        events = self._begun()
        self._silent += piece.logprobs
        if piece.text:
            events += self._tell_text(piece.text)
        for call in piece.calls:
            events += self._tell_call(call)
        return events

    def finish(self, result: Result) -> list[Event]:
        """The end of a job that was answered: what is open is closed, as the result has it."""
        events = self._begun() + self._tell_rest(result)
        cut = result.finish_reason is FinishReason.LENGTH
        if self._message is not None:
            events += self._end_message(self._message, "incomplete" if cut else "completed")
        for index, begun in self._calls.items():
            events += self._end_call(index, begun, result.tool_calls[index : index + 1])
        response = answer.finished(self._record, result, self._output)
        return [*events, self._event(f"response.{response['status']}", response=response)]

    def fail(self, response: dict[str, Any]) -> list[Event]:
        """The end of a job that was not: ``response`` says why."""
        return [self._event("response.failed", response=response)]

    def error(self, error: ApiError) -> Event:
        """The end of a stream that cannot go on, though the job may."""
        return self._event("error", code=error.code, message=str(error), param=error.param)

    def ping(self) -> Event:
        """A sign of life, for clients that count what they can read. It has the number of the event before, so that
        who resumes after it misses nothing and gets nothing twice."""
        standing = self._standing()
        return {"type": standing.pop("kind"), "sequence_number": self._counted - 1, **standing}

    def _event(self, kind: str, **fields: Any) -> Event:
        self._counted += max(1, len(fields.get("delta", "")))
        return {"type": kind, "sequence_number": self._counted - 1, **fields}

    def _standing(self) -> dict[str, Any]:
        state, kind = (JobState.QUEUED, "queued") if self._waits else (JobState.RUNNING, "in_progress")
        return {"kind": f"response.{kind}", "response": answer.unfinished(self._record, state)}

    def _begun(self) -> list[Event]:
        if not self._waits:
            return []
        self._waits = False
        return [self._event(**self._standing())]

    # -- the text

    def _tell_text(self, text: str) -> list[Event]:
        events: list[Event] = []
        if self._message is None:
            self._message, events = self._begin_message()
        logprobs, self._silent = self._silent, []
        self._message.text += text
        self._message.logprobs += logprobs
        told = [answer.logprob(one) for one in logprobs]
        return [*events, self._part_event("output_text.delta", self._message, delta=text, logprobs=told)]

    def _begin_message(self) -> tuple[_Message, list[Event]]:
        message, item = _Message(len(self._output)), answer.message(self._record.id, "", (), "in_progress")
        added = self._begin(item)
        return message, [added, self._part_event("content_part.added", message, part=answer.output_text("", ()))]

    def _end_message(self, message: _Message, status: str) -> list[Event]:
        logprobs = [*message.logprobs, *self._silent]
        part = answer.output_text(message.text, logprobs)
        ended = self._part_event("output_text.done", message, text=message.text, logprobs=part["logprobs"])
        part_ended = self._part_event("content_part.done", message, part=part)
        item = answer.message(self._record.id, message.text, logprobs, status)
        return [ended, part_ended, self._end(message.at, item)]

    def _part_event(self, kind: str, message: _Message, **fields: Any) -> Event:
        place = {"item_id": f"msg_{self._record.id}", "output_index": message.at, "content_index": 0}
        return self._event(f"response.{kind}", **place, **fields)

    # -- calls

    def _tell_call(self, delta: ToolCallDelta) -> list[Event]:
        events, call = [], self._calls.get(delta.index)
        if call is None:
            call = self._calls[delta.index] = _Call(len(self._output), delta.id, delta.name)
            events = [self._begin(self._call_item(delta.index, call, "in_progress"))]
        if delta.arguments:
            call.arguments += delta.arguments
            events.append(self._call_event("delta", delta.index, call, delta=delta.arguments))
        return events

    def _end_call(self, index: int, call: _Call, final: tuple[ToolCall, ...]) -> list[Event]:
        """``final``: the call as the result has it, none if it was cut."""
        call.arguments = final[0].arguments if final else call.arguments
        ended = self._call_event("done", index, call, name=call.name, arguments=call.arguments)
        return [ended, self._end(call.at, self._call_item(index, call, "completed" if final else "incomplete"))]

    def _call_item(self, index: int, call: _Call, status: str) -> Item:
        told = ToolCall.model_construct(id=call.id, name=call.name, arguments=call.arguments)
        return answer.function_call(self._record.id, index, told, status)

    def _call_event(self, kind: str, index: int, call: _Call, **fields: Any) -> Event:
        place = {"item_id": f"fc_{self._record.id}_{index}", "output_index": call.at}
        return self._event(f"response.function_call_arguments.{kind}", **place, **fields)

    # -- both

    def _tell_rest(self, result: Result) -> list[Event]:
        """What the result has and no piece brought."""
        had = self._message.text if self._message else ""
        heard = len(self._message.logprobs) if self._message else 0
        self._silent += (result.token_logprobs or ())[heard + len(self._silent) :]
        events = self._tell_text(result.text[len(had) :]) if len(result.text) > len(had) else []
        for index, call in enumerate(result.tool_calls):
            begun = self._calls.get(index)
            rest = call.arguments[len(begun.arguments) :] if begun else call.arguments
            if begun is None or rest:
                events += self._tell_call(ToolCallDelta(index=index, id=call.id, name=call.name, arguments=rest))
        if self._message is None and not self._calls:
            self._message, began = self._begin_message()
            events += began
        return events

    def _begin(self, item: Item) -> Event:
        self._output.append(item)
        return self._event("response.output_item.added", output_index=len(self._output) - 1, item=item)

    def _end(self, at: int, item: Item) -> Event:
        self._output[at] = item
        return self._event("response.output_item.done", output_index=at, item=item)
