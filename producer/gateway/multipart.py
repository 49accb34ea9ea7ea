"""Multipart: a form with one file, read as it comes: fields into memory, bounded, and the file piece by piece.

Knows the form alone; neither what the fields mean nor where the file goes.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator
from dataclasses import dataclass, field

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.requests import Request

from lorapool.producer.gateway.errors import ApiError, invalid

MAX_FIELDS, MAX_FIELD_BYTES = 32, 4096
FILE = "file"


@dataclass(slots=True)
class Form:
    """``fields`` that came so far, ``filename`` once the file has begun."""

    fields: dict[str, str] = field(default_factory=dict)
    filename: str | None = None


class FormReader:
    """Feed it bytes; what of the file they brought is ``take``n. Raises ApiError."""

    def __init__(self, boundary: bytes) -> None:
        self.form = Form()
        self._name, self._value, self._headers = "", bytearray(), dict[bytes, bytes]()
        self._header, self._header_value = bytearray(), bytearray()
        self._pieces: list[bytes] = []
        self._ended = False
        self._parser = MultipartParser(
            boundary,
            {
                "on_part_begin": self._begin,
                "on_header_field": lambda data, start, end: self._header.extend(data[start:end]),
                "on_header_value": lambda data, start, end: self._header_value.extend(data[start:end]),
                "on_header_end": self._end_header,
                "on_headers_finished": self._open,
                "on_part_data": self._data,
                "on_part_end": self._close,
                "on_end": self._end,
            },
        )

    def feed(self, data: bytes) -> None:
        try:
            self._parser.write(data)
        except FormParserError as error:
            raise invalid(f"the body is no multipart form: {error}", code="invalid_form") from None

    def take(self) -> bytes:
        pieces, self._pieces = self._pieces, []
        return b"".join(pieces)

    def finish(self) -> None:
        """Raises ApiError where the form was cut off."""
        if not self._ended:
            raise invalid("the body is no multipart form: its end is missing", code="invalid_form")

    def _begin(self) -> None:
        self._headers, self._value = {}, bytearray()

    def _end_header(self) -> None:
        self._headers[bytes(self._header).lower()] = bytes(self._header_value)
        self._header, self._header_value = bytearray(), bytearray()

    def _open(self) -> None:
        _, options = parse_options_header(self._headers.get(b"content-disposition", b""))
        self._name = options.get(b"name", b"").decode(errors="replace")
        if self._name == FILE:
            if self.form.filename is not None:
                raise invalid("file: given twice; one file is taken at a time", param=FILE)
            self.form.filename = options.get(b"filename", b"").decode(errors="replace")
        elif self._name in self.form.fields or len(self.form.fields) >= MAX_FIELDS:
            raise invalid(f"{self._name[:64]!r}: given twice, or one field too many", code="invalid_form")

    def _data(self, data: bytes, start: int, end: int) -> None:
        if self._name == FILE:
            self._pieces.append(data[start:end])
        elif len(self._value) + end - start > MAX_FIELD_BYTES:
            raise invalid(f"{self._name[:64]!r}: more than {MAX_FIELD_BYTES} bytes", code="invalid_form")
        else:
            self._value += data[start:end]

    def _close(self) -> None:
        if self._name != FILE:
            self.form.fields[self._name] = self._value.decode(errors="replace")

    def _end(self) -> None:
        self._ended = True


async def read_form(request: Request) -> AsyncGenerator[tuple[Form, bytes], None]:
    """The form as far as it came, and the file's next piece; the last time with the whole form. Raises ApiError."""
    reader = FormReader(_boundary(request))
    chunks: AsyncIterator[bytes] = request.stream()
    async for chunk in chunks:
        reader.feed(chunk)
        if piece := reader.take():
            yield reader.form, piece
    reader.finish()
    yield reader.form, b""


def _boundary(request: Request) -> bytes:
    kind, options = parse_options_header(request.headers.get("content-type", ""))
    boundary = options.get(b"boundary", b"")
    if kind != b"multipart/form-data" or not 0 < len(boundary) <= 256:
        raise ApiError(415, "content-type: expected multipart/form-data, with a file", param="content-type")
    return boundary
