"""Plain text: what strangers wrote, made fit to be stored, sent and shown. Used once, where text enters Redis.

A lone surrogate has no UTF-8 and ends whoever encodes it; NUL and other control characters confuse terminals and logs;
a text without end fills servers. Knows nothing of what the text says.
"""

from __future__ import annotations

import re
from typing import Any

MAX_CHARACTERS = 2000  # of a reason, a message, a fact
_LONE = re.compile(r"[\ud800-\udfff]")
_UNFIT = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]")  # all but tab and new line
_REPLACEMENT = "\N{REPLACEMENT CHARACTER}"


def encodable(text: str) -> str:
    """The same text, with a replacement character for each lone surrogate."""
    return text if text.isascii() else _LONE.sub(_REPLACEMENT, text)


def plain_text(text: str, most: int = MAX_CHARACTERS) -> str:
    """Without surrogates and control characters, cut where it is longer than ``most`` characters."""
    fit = _UNFIT.sub(_REPLACEMENT, text[: most + 1])
    return fit if len(fit) <= most else f"{fit[: most - 1]}…"


def plain_values(value: Any) -> Any:
    """The same for every text within lists, tuples and maps of JSON; keys too. Nothing is cut."""
    if isinstance(value, str):
        return _UNFIT.sub(_REPLACEMENT, value)
    if isinstance(value, dict):
        return {plain_values(key): plain_values(inner) for key, inner in value.items()}
    return [plain_values(inner) for inner in value] if isinstance(value, list | tuple) else value
