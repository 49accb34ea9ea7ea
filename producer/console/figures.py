"""Figures: numbers, times and texts as a page shows them: with units, aligned, without control characters. Pure."""

from __future__ import annotations

import re
import time
from datetime import UTC, datetime

NONE = "–"
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069]")
_SIZES = (("d", 86_400_000), ("h", 3_600_000), ("min", 60_000))


def clean(text: object) -> str:
    """Without what steers a terminal or turns the direction of writing: others choose names and texts."""
    return _CONTROL.sub("\N{REPLACEMENT CHARACTER}", str(text).replace("\r\n", "\n"))


def count(value: float | None) -> str:
    """``12,345`` or ``0.5``."""
    if value is None:
        return NONE
    return f"{value:,.0f}" if float(value).is_integer() or abs(value) >= 100 else f"{value:,.1f}"


def short(value: float | None) -> str:
    """``950``, ``12.3 k``, ``4.1 M``: where the last digit does not matter."""
    if value is None:
        return NONE
    for unit, size in (("G", 1e9), ("M", 1e6), ("k", 1e4)):
        if abs(value) >= size:
            return f"{value / (1e3 if unit == 'k' else size):,.1f} {unit}"
    return count(value)


def span(milliseconds: float | None) -> str:
    """``850 ms``, ``2.4 s``, ``3 min``, ``5 h``, ``2 d``."""
    if milliseconds is None:
        return NONE
    if milliseconds < 1000:
        return f"{milliseconds:.0f} ms"
    for unit, size in _SIZES:
        if milliseconds >= 2 * size:
            return f"{milliseconds / size:.0f} {unit}"
    return f"{milliseconds / 1000:.1f} s"


def since(at_ms: float | None, now_ms: float | None = None) -> str:
    """``3 min ago``, or ``in 5 h`` for what is to come."""
    if not at_ms:
        return NONE
    passed_ms = (time.time() * 1000 if now_ms is None else now_ms) - at_ms
    if abs(passed_ms) < 1000:
        return "now"
    return f"{span(passed_ms)} ago" if passed_ms > 0 else f"in {span(-passed_ms)}"


def moment(at_ms: float | None) -> str:
    """``2026-12-01 08:00:00 UTC``."""
    if not at_ms or not 0 < at_ms < 32_503_680_000_000:
        return NONE
    return f"{datetime.fromtimestamp(at_ms / 1000, UTC):%Y-%m-%d %H:%M:%S} UTC"


def percent(share: float | None) -> str:
    """``0.974`` is ``97 %``."""
    return NONE if share is None else f"{100 * share:.0f} %"


def dollars(usd: float | None) -> str:
    """``$12.34``, ``$0.0380``: what is small with four places, so that columns align."""
    if usd is None:
        return NONE
    return f"${usd:,.2f}" if usd >= 1 or not usd else f"${usd:.4f}" if usd >= 1e-4 else "< $0.0001"


def share(part: float, whole: float) -> float | None:
    """None of nothing."""
    return part / whole if whole else None


FILTERS = {
    "clean": clean,
    "count": count,
    "short": short,
    "span": span,
    "since": since,
    "moment": moment,
    "percent": percent,
    "dollars": dollars,
}
