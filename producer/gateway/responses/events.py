"""Narrator: a response's stream of events, made of the deltas of its job.

The same deltas make the same events with the same numbers, at any replica and whenever it is told again: that is how a
stream is resumed after a number. Pure: knows neither HTTP nor the queue, and no time.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from lorapool.producer.client.stream import TextDelta
from lorapool.producer.gateway.responses import answer
from lorapool.producer.gateway.responses.items import Item
from lorapool.shared.job import FinishReason, JobState, Result, TokenLogprob
from lorapool.shared.responses.response_record import ResponseRecord
from lorapool.shared.tools import ToolCall, ToolCallDelta

Event = dict[str, Any]


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
        self._number = 0
        self._output: list[Item] = []  # as it stands at each item's end
        self._message: _Message | None = None
        self._calls: dict[int, _Call] = {}
        self._silent: list[TokenLogprob] = []  # of tokens that have brought no text yet

    def opening(self) -> list[Event]:
        """What comes before the first token."""
        background, queued = self._record.background, answer.unfinished(self._record, JobState.QUEUED)
        running = answer.unfinished(self._record, JobState.RUNNING)
        created = self._event("response.created", response=queued if background else running)
        waiting = [self._event("response.queued", response=queued)] if background else []
        return [created, *waiting, self._event("response.in_progress", response=running)]

    def tell(self, delta: TextDelta) -> list[Event]:
        """What one delta brings; an event of type ``error``, the last, where it voids what was told."""
        if delta.restart and (self._message or self._calls):
            return [self._error()]
        self._silent += delta.more.logprobs
        events = self._tell_text(delta.text) if delta.text else []
        for call in delta.more.tool_calls:
            events += self._tell_call(call)
        return events

    def finish(self, result: Result) -> list[Event]:
        """The end of a job that was answered: what is open is closed, as the result has it."""
        events = self._tell_rest(result)
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

    def ping(self) -> Event:
        """A sign of life, for clients that count what they can read. It has the number of the event before, so that
        who resumes after it misses nothing and gets nothing twice."""
        running = answer.unfinished(self._record, JobState.RUNNING)
        return {"type": "response.in_progress", "sequence_number": self._number - 1, "response": running}

    def _event(self, kind: str, **fields: Any) -> Event:
        self._number += 1
        return {"type": kind, "sequence_number": self._number - 1, **fields}

    def _error(self) -> Event:
        message = "another attempt gave another answer than what was streamed: retrieve the response for the whole"
        return self._event("error", code="server_error", message=message, param=None)

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
        """What the result has and no delta brought."""
        events: list[Event] = []
        for index, call in enumerate(result.tool_calls):
            told = self._calls.get(index)
            if told is None or (call.arguments != told.arguments and call.arguments.startswith(told.arguments)):
                rest = call.arguments[len(told.arguments) :] if told else call.arguments
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
