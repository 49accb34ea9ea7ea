"""Redaction: no password of any URL in what is said. Imports nothing, so that whatever logs may use it."""

from __future__ import annotations

import re

_SECRET = re.compile(r"//(?P<user>[^:@/\s]*):(?P<password>\S*)@")
_SECRET_QUERY = re.compile(r"([?&]password=)[^&\s]*", re.IGNORECASE)


def redact(url: str) -> str:
    """The text without the passwords of the URLs in it."""
    text = _SECRET.sub(r"//\g<user>:***@", url) if "@" in url else url
    return _SECRET_QUERY.sub(r"\1***", text)
