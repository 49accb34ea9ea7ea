"""Constants: what Python and the Lua texts both know, written into the texts under their names when they are put
together. So it stands in one place, costs nothing a call, and two releases never share a text by accident.

``TERMS.LEASE_MS`` is a number; ``LANE.NAMES`` and ``TTL.ALL`` are what stands between a table's braces.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict

from lorapool.shared.server.keys import LANES, OVER_QUOTA
from lorapool.shared.server.terms import CONTROL_MAX, POOL_TTL_MS, TTL_MS, WAKE_WORKER_TTL_MS, Terms

Members = Mapping[str, str]  # Lua by name


def constants(terms: Terms) -> dict[str, Members]:
    """By namespace."""
    return {"TERMS": _terms(terms), "TTL": _ttls(), "LANE": _lanes(terms)}


def written_in(text: str, known: Mapping[str, Members]) -> str:
    """The text with constants for their names. Raises KeyError for a name that is none."""

    def value(match: re.Match[str]) -> str:
        members = known[match[1]]
        if match[2] not in members:
            raise KeyError(f"{match[0]} is no constant: expected {match[1]}. and one of {', '.join(sorted(members))}")
        return members[match[2]]

    return re.sub(rf"\b({'|'.join(known)})\.(\w+)", value, text)


def _terms(terms: Terms) -> Members:
    named = {**asdict(terms), "control_max": CONTROL_MAX}
    return {name.upper(): str(value) for name, value in named.items()}


def _ttls() -> Members:
    """In milliseconds; ``ALL`` are those of a partition's keys by kind."""
    kept = {**TTL_MS, **POOL_TTL_MS, "wake_worker": WAKE_WORKER_TTL_MS}
    return {**{name: str(ms) for name, ms in kept.items()}, "ALL": _fields(TTL_MS)}


def _lanes(terms: Terms) -> Members:
    passed_ms = {lane: terms.passed_ms(lane) for lane in LANES}
    return {
        "NAMES": ", ".join(f"'{lane}'" for lane in LANES),
        "PASSED_MS": _fields(passed_ms),
        "OVER_QUOTA": f"'{OVER_QUOTA}'",
    }


def _fields(numbers: Mapping[str, int]) -> str:
    return ", ".join(f"{name} = {number}" for name, number in numbers.items())
