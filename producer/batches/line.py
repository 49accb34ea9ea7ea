"""Line: one request of a batch's file, or what is wrong with it; and a file cut into lines, none of them too long.

Knows the form that OpenAI's Batch API gives a line, and nothing of what its body asks. Pure but for reading.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from lorapool.producer.batches.content import Reading

MAX_LINES = 50_000
MAX_LINE_BYTES = 4 << 20  # a request that the queue takes is smaller
MAX_CUSTOM_ID = 512  # characters
FIELDS = frozenset({"custom_id", "method", "url", "body"})
_BOM = b"\xef\xbb\xbf"


@dataclass(frozen=True, slots=True)
class Line:
    """``number`` counts requests from 0."""

    number: int
    custom_id: str
    body: dict[str, Any]
    size: int  # bytes


class Fault(Exception):
    """What is wrong with a line, or with the file (``line`` None); ``code`` and ``param`` as OpenAI's API has them."""

    def __init__(self, code: str, message: str, *, param: str | None = None, line: int | None = None) -> None:
        super().__init__(message)
        self.code, self.param, self.line = code, param, line

    def shown(self) -> dict[str, Any]:
        """As a batch tells it."""
        return {"code": self.code, "message": str(self), "param": self.param, "line": self.line}


def parse(text: bytes, number: int, endpoint: str) -> Line:
    """A request for that endpoint. Raises Fault."""
    request = _object(text)
    if unknown := request.keys() - FIELDS:
        raise Fault("unknown_parameter", f"{min(unknown)!r:.60}: expected custom_id, method, url and body alone")
    custom_id, body = request.get("custom_id"), request.get("body")
    if not isinstance(custom_id, str) or not 0 < len(custom_id) <= MAX_CUSTOM_ID:
        raise Fault("invalid_custom_id", f"expected a text of 1 to {MAX_CUSTOM_ID} characters", param="custom_id")
    if request.get("method") != "POST":
        raise Fault("invalid_method", f"{request.get('method')!r:.60}: expected POST", param="method")
    if request.get("url") != endpoint:
        raise Fault("mismatched_url", f"{request.get('url')!r:.60}: the batch is for {endpoint}", param="url")
    if not isinstance(body, dict):
        raise Fault("invalid_body", "expected an object, the body of the request", param="body")
    return Line(number, custom_id, body, len(text))


def lines_of(reading: Reading) -> Iterator[tuple[int, bytes]]:
    """Each line that says something, with its number in the file from 1. Raises Fault for one that is too long."""
    number, rest = 0, b""
    for block in _blocks(reading):
        *whole, rest = (rest + block).split(b"\n")
        for text in whole:
            number += 1
            if stripped := _fitting(text, number):
                yield number, stripped
        _fitting(rest, number + 1)
    if stripped := rest.strip():
        yield number + 1, stripped


def _blocks(reading: Reading) -> Iterator[bytes]:
    """Without the mark that some editors put before UTF-8."""
    block = reading.read()
    yield block.removeprefix(_BOM)
    while block:
        block = reading.read()
        yield block


def _fitting(text: bytes, number: int) -> bytes:
    if len(text) > MAX_LINE_BYTES:
        raise Fault("line_too_long", f"more than {MAX_LINE_BYTES:,} bytes, the limit of a line", line=number)
    return text.strip()


def _object(text: bytes) -> dict[str, Any]:
    try:
        request = json.loads(text.decode(), parse_constant=_no_number)
    except (ValueError, RecursionError) as error:
        raise Fault("invalid_json_line", f"not JSON: {str(error)[:200]}") from None
    if not isinstance(request, dict):
        raise Fault("invalid_json_line", f"expected a JSON object, found {type(request).__name__}")
    return request


def _no_number(name: str) -> Any:
    raise ValueError(f"{name} is no JSON number")
