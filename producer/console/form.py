"""Form: what a browser posts, read within bounds: names and texts, nothing of which is trusted."""

from __future__ import annotations

from urllib.parse import parse_qsl

from starlette.datastructures import ImmutableMultiDict
from starlette.requests import Request

from lorapool.shared.errors import InvalidRequest, PayloadTooLarge

MAX_BYTES, MAX_FIELDS = 256 * 1024, 600


class Form(ImmutableMultiDict[str, str]):
    """Values without the spaces around them; what is not there is empty."""

    def text(self, name: str) -> str:
        return self.get(name, "").strip()

    def whole(self, name: str) -> int | None:
        """A whole number, None where nothing was given. Raises InvalidRequest."""
        text = self.text(name).replace(",", "")
        if not text:
            return None
        if not text.isdecimal() or len(text) > 15:
            raise InvalidRequest(f"{name} = {text!r:.60}: expected a whole number, 0 or more")
        return int(text)

    def real(self, name: str) -> float | None:
        """A number, None where nothing was given. Raises InvalidRequest."""
        text = self.text(name)
        if not text:
            return None
        try:
            return float(text)
        except ValueError:
            raise InvalidRequest(f"{name} = {text!r:.60}: expected a number") from None


async def posted(request: Request) -> Form:
    """The body as a form. Raises PayloadTooLarge, InvalidRequest."""
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > MAX_BYTES:
            raise PayloadTooLarge(f"the form has more than {MAX_BYTES:,} bytes: send less at a time")
    return _parsed(body.decode(errors="replace"))


def asked(request: Request) -> Form:
    """The address's own fields, as a form. Raises InvalidRequest."""
    return _parsed(request.url.query)


def _parsed(text: str) -> Form:
    try:
        return Form(parse_qsl(text, keep_blank_values=True, max_num_fields=MAX_FIELDS))
    except ValueError:
        raise InvalidRequest(f"the form has more than {MAX_FIELDS} fields: choose fewer at a time") from None
