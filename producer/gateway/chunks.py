"""Chunks: a streamed answer in OpenAI's two forms, event by event.

A chunk of a role comes at once, an empty one now and then while nothing else does: clients count chunks, not comments.
The last of each answer has the proof of what wrote it, as ``lorapool``. Each event's id is the answer's, and how much
of it has been sent.
"""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from lorapool.producer.client.handle import JobHandle
from lorapool.producer.gateway.answer import fingerprint, finish_reason, proof_of, usage_of
from lorapool.producer.gateway.completion_id import CompletionId
from lorapool.producer.gateway.cursor import Cursor, Piece, Place
from lorapool.producer.gateway.errors import of_error
from lorapool.producer.gateway.following import Item, followed
from lorapool.producer.gateway.logprobs import chat_logprobs, plain_logprobs
from lorapool.producer.gateway.sse import DONE, error_event, event
from lorapool.shared.job import Result
from lorapool.shared.tools import ToolCallDelta, joined


class Form(Protocol):
    """How a choice is written. ``word`` is the object's kind."""

    @property
    def word(self) -> str: ...
    def first(self, index: int) -> dict[str, Any]: ...
    def nothing(self, index: int) -> dict[str, Any]: ...
    def piece(self, index: int, piece: Piece, offset: int) -> dict[str, Any]:
        """``offset``: of the piece within the answer's text."""
        ...


class ChatForm:
    word = "chat.completion.chunk"

    def first(self, index: int) -> dict[str, Any]:
        return _chat(index, {"role": "assistant", "content": "", "refusal": None})

    def nothing(self, index: int) -> dict[str, Any]:
        return _chat(index, {})

    def piece(self, index: int, piece: Piece, offset: int) -> dict[str, Any]:
        delta: dict[str, Any] = {}
        if piece.text or not piece.calls:
            delta["content"] = piece.text
        if piece.calls:
            delta["tool_calls"] = [_call(call) for call in joined(piece.calls)]  # clients may look at the first alone
        return _chat(index, delta) | {"logprobs": chat_logprobs(piece.logprobs or None)}


@dataclass(frozen=True, slots=True)
class PlainForm:
    """``echoed``: the prompt of each answer, if it is to come before."""

    echoed: Sequence[str] = ()
    word: str = "text_completion"

    def first(self, index: int) -> dict[str, Any]:
        return _plain(index, self.echoed[index] if self.echoed else "")

    def nothing(self, index: int) -> dict[str, Any]:
        return _plain(index, "")

    def piece(self, index: int, piece: Piece, offset: int) -> dict[str, Any]:
        return _plain(index, piece.text) | {"logprobs": plain_logprobs(piece.logprobs or None, offset=offset)}


@dataclass(frozen=True, slots=True)
class Stream:
    """One request's. ``prompts``: how many it had; ``had``: what of each answer the reader has already."""

    id: CompletionId
    form: Form
    model: str
    digest: str
    created: int
    handles: Sequence[JobHandle]
    include_usage: bool = False
    prompts: int = 1
    had: Sequence[Place] = ()
    metadata: Mapping[str, str] | None = None
    results: dict[int, Result] = field(default_factory=dict)

    async def events(self, ping_s: float) -> AsyncGenerator[bytes, None]:
        """All of it, from what the reader has on; an error of a job is the last."""
        cursors = [Cursor(self.had[index] if self.had else None) for index in range(len(self.handles))]
        writer = _Writer(self, cursors)
        if not self.had:
            yield b"".join(writer.chunk(self.form.first(index)) for index in range(len(cursors)))
        following = followed(self.handles, ping_s)
        try:
            async for batch in following:
                yield b"".join(writer.written(batch)) if batch else writer.chunk(self.form.nothing(0))
        except Exception as error:  # noqa: BLE001 - told to the client, in the stream
            yield error_event(of_error(error))
            return
        finally:
            await following.aclose()
        yield (writer.usage() if self.include_usage else b"") + DONE


class _Writer:
    def __init__(self, stream: Stream, cursors: Sequence[Cursor]) -> None:
        self._stream, self._cursors = stream, cursors
        self._id = str(stream.id)
        head = {"id": self._id, "object": stream.form.word, "created": stream.created, "model": stream.model}
        head["system_fingerprint"] = fingerprint(stream.digest)
        if stream.metadata is not None:
            head["metadata"] = stream.metadata
        self._head = f'{json.dumps(head)[:-1]},"choices":['
        self._tail = '],"usage":null}' if stream.include_usage else "]}"

    def written(self, batch: Sequence[Item]) -> list[bytes]:
        """The events of what has come."""
        events: list[bytes] = []
        for index, what in batch:
            cursor = self._cursors[index]
            if isinstance(what, Result):
                events += self._end(index, cursor, what)
            elif fresh := cursor.take(what):
                events.append(self._piece(index, cursor, fresh))
        return events

    def chunk(self, choice: Mapping[str, Any]) -> bytes:
        """An event with one choice."""
        return event(f"{self._head}{json.dumps(choice)}{self._tail}", self._event_id())

    def usage(self) -> bytes:
        """The event that comes last where it was asked for."""
        results = [self._stream.results[index] for index in range(len(self._cursors))]
        usage = json.dumps(usage_of(results, prompts=self._stream.prompts))
        return event(f'{self._head}],"usage":{usage}}}', self._event_id())

    def _piece(self, index: int, cursor: Cursor, fresh: Piece) -> bytes:
        return self.chunk(self._stream.form.piece(index, fresh, cursor.place.text - len(fresh.text)))

    def _end(self, index: int, cursor: Cursor, result: Result) -> list[bytes]:
        self._stream.results[index] = result
        events = [self._piece(index, cursor, rest)] if (rest := cursor.rest(result)) else []
        if cursor.end():
            last = self._stream.form.nothing(index) | {"finish_reason": finish_reason(result)}
            proof = json.dumps(proof_of(result))
            tail = f'],"lorapool":{proof}{self._tail[1:]}'
            events.append(event(f"{self._head}{json.dumps(last)}{tail}", self._event_id()))
        return events

    def _event_id(self) -> str:
        return f"{self._id}:{','.join(str(cursor.place) for cursor in self._cursors)}"


def _chat(index: int, delta: dict[str, Any]) -> dict[str, Any]:
    return {"index": index, "delta": delta, "logprobs": None, "finish_reason": None}


def _plain(index: int, text: str) -> dict[str, Any]:
    return {"index": index, "text": text, "logprobs": None, "finish_reason": None}


def _call(delta: ToolCallDelta) -> dict[str, Any]:
    function: dict[str, Any] = {"arguments": delta.arguments}
    if not (delta.id or delta.name):
        return {"index": delta.index, "function": function}
    return {"index": delta.index, "id": delta.id, "type": "function", "function": {"name": delta.name, **function}}
