"""Events of a stream as a client reads them: id and data."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Event:
    id: str
    data: Any  # parsed, but for [DONE]


def events_of(text: str) -> list[Event]:
    """Of a whole stream."""
    return [_event(block) for block in text.split("\n\n") if "data:" in block]


def _event(block: str) -> Event:
    fields = dict(line.split(": ", 1) for line in block.split("\n") if not line.startswith(":"))
    data = fields["data"]
    return Event(fields.get("id", ""), data if data == "[DONE]" else json.loads(data))


def chunks_of(text: str) -> list[dict[str, Any]]:
    """Its chunks; the end is there."""
    events = events_of(text)
    assert events[-1].data == "[DONE]"
    return [event.data for event in events[:-1]]


def content(chunks: list[dict[str, Any]], index: int = 0) -> str:
    """The text of one answer."""
    choices = [choice for chunk in chunks for choice in chunk["choices"] if choice["index"] == index]
    return "".join(choice["delta"].get("content") or "" for choice in choices)
