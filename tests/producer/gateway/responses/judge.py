"""openai's own models as judges of what the gateway says: every field that they require is there, of its type."""

from __future__ import annotations

from typing import Any

from openai.types.responses import Response, ResponseItem, ResponseStreamEvent
from pydantic import TypeAdapter

EVENT: TypeAdapter[Any] = TypeAdapter(ResponseStreamEvent)
ITEM: TypeAdapter[Any] = TypeAdapter(ResponseItem)


def judged(events: list[dict[str, Any]]) -> list[Any]:
    """The events as openai reads them; each number is larger than the one before."""
    read = [EVENT.validate_python(event) for event in events]
    numbers = [event.sequence_number for event in read]
    assert sorted(set(numbers)) == numbers
    return read


def response(body: dict[str, Any]) -> Response:
    """The response as openai reads it."""
    return Response.model_validate(body)
