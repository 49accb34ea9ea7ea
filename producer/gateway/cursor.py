"""Cursor: how far one streamed answer has got, so that it can be gone on with at another replica, nothing twice.

Counts characters of text, tokens told of, and pieces of calls, not entries: those are cut otherwise after a retry.
Pure.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

from lorapool.producer.gateway.errors import ApiError
from lorapool.shared.job import Result, TokenLogprob
from lorapool.shared.tools import ToolCall, ToolCallDelta

_PLACE = re.compile(r"([0-9]{1,9})\.([0-9]{1,9})\.([0-9]{1,9})(e?)")


@dataclass(frozen=True, slots=True)
class Place:
    """``calls``: characters of arguments, and one for each call's name. ``ended``: why it ended is said too."""

    text: int = 0
    logprobs: int = 0
    calls: int = 0
    ended: bool = False

    def __str__(self) -> str:
        return f"{self.text}.{self.logprobs}.{self.calls}{'e' * self.ended}"


@dataclass(frozen=True, slots=True)
class Piece:
    """What is new."""

    text: str = ""
    logprobs: tuple[TokenLogprob, ...] = ()
    calls: tuple[ToolCallDelta, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.text or self.logprobs or self.calls)


def places_of(text: str, answers: int) -> list[Place]:
    """Of an event's id. Raises ApiError."""
    matches = [_PLACE.fullmatch(part) for part in text[:8192].split(",")]
    places = [Place(int(m[1]), int(m[2]), int(m[3]), bool(m[4])) for m in matches if m is not None]
    if len(places) != answers:
        raise ApiError(400, f"Last-Event-ID: {text[:60]!r} is none of this stream's", param="Last-Event-ID")
    return places


class Cursor:
    """Of one answer; ``had`` is what its reader has already."""

    def __init__(self, had: Place | None = None) -> None:
        self.had, self._seen = had or Place(), Place()

    @property
    def resumed(self) -> bool:
        return self.had != Place()

    @property
    def place(self) -> Place:
        """What the reader has once it took all that was handed out."""
        had, seen = self.had, self._seen
        return Place(
            max(had.text, seen.text),
            max(had.logprobs, seen.logprobs),
            max(had.calls, seen.calls),
            had.ended or seen.ended,
        )

    def take(self, piece: Piece) -> Piece:
        """What of the next piece the reader does not have."""
        had, seen = self.had, self._seen
        fresh = Piece(
            piece.text[max(0, had.text - seen.text) :],
            piece.logprobs[max(0, had.logprobs - seen.logprobs) :],
            _cut(piece.calls, had.calls - seen.calls),
        )
        self._seen = replace(
            seen,
            text=seen.text + len(piece.text),
            logprobs=seen.logprobs + len(piece.logprobs),
            calls=seen.calls + sum(map(_size, piece.calls)),
        )
        return fresh

    def rest(self, result: Result) -> Piece:
        """What of the whole answer no piece brought."""
        seen = self._seen
        calls = [_whole(index, call) for index, call in enumerate(result.tool_calls)]
        whole = Piece(result.text[seen.text :], (result.token_logprobs or ())[seen.logprobs :], _cut(calls, seen.calls))
        return self.take(whole)

    def end(self) -> bool:
        """It ended; whether the reader does not know that yet."""
        self._seen = replace(self._seen, ended=True)
        return not self.had.ended


def _whole(index: int, call: ToolCall) -> ToolCallDelta:
    return ToolCallDelta(index=index, id=call.id, name=call.name, arguments=call.arguments)


def _size(delta: ToolCallDelta) -> int:
    return bool(delta.id or delta.name) + len(delta.arguments)


def _cut(deltas: Sequence[ToolCallDelta], units: int) -> tuple[ToolCallDelta, ...]:
    """Without the first ``units`` of them."""
    kept = []
    for delta in deltas:
        size = _size(delta)
        if units <= 0:
            kept.append(delta)
        elif units < size:
            named = bool(delta.id or delta.name)
            kept.append(ToolCallDelta(index=delta.index, arguments=delta.arguments[units - named :]))
        units -= size
    return tuple(kept)
