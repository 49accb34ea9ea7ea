"""The time that a batch has: ``24h``, as OpenAI's API writes it, and others from a minute to a week. Pure."""

from __future__ import annotations

import re

from lorapool.shared.errors import InvalidRequest

UNIT_S = {"h": 3600, "m": 60, "d": 86_400}
LONGEST_S = 7 * 86_400
_WINDOW = re.compile(r"([1-9][0-9]{0,5})([mhd])")


def window_s(text: object) -> int:
    """Seconds. Raises InvalidRequest."""
    match = _WINDOW.fullmatch(text) if isinstance(text, str) else None
    seconds = int(match[1]) * UNIT_S[match[2]] if match else 0
    if not 0 < seconds <= LONGEST_S:
        raise InvalidRequest(f"completion_window = {text!r:.60}: expected a time such as 24h, of 1m to 7d")
    return seconds


def window_text(seconds: int) -> str:
    """As it was given, or the same in other units."""
    return next(f"{seconds // unit}{name}" for name, unit in (*UNIT_S.items(), ("s", 1)) if not seconds % unit)
