"""Constants: what Python and the Lua texts both know, written into the texts under their names when they are put
together. So it stands in one place, costs nothing a call, and two releases never share a text by accident.

``TERMS.LEASE_MS`` is a number, ``SETTLE.text`` the position of a field (records.py); ``LANE.NAMES`` and ``TTL.ALL`` are
what stands between a table's braces.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict

from lorapool.shared.job import BASE_REF, Priority
from lorapool.shared.scripts.records import RECORDS
from lorapool.shared.scripts.rows import in_order
from lorapool.shared.server.keys import LANES, OVER_QUOTA
from lorapool.shared.server.terms import (
    AUDIT_MAX,
    CONTROL_MAX,
    MAX_JOBS,
    POOL_TTL_MS,
    TTL_MS,
    WAKE_WORKER_TTL_MS,
    Terms,
)

Members = Mapping[str, str]  # Lua by name


_CONSTANT = re.compile(r"\b([A-Z][A-Z_]+)\.(\w+)")
_REF = {"BASE": f"'{BASE_REF}'"}


def constants(terms: Terms) -> dict[str, Members]:
    """By namespace."""
    records = {name: _positions(fields) for name, fields in RECORDS.items()}
    return {
        "TERMS": _terms(terms),
        "TTL": _ttls(),
        "LANE": _lanes(terms),
        "PRIORITY": _priorities(),
        "REF": _REF,
        **records,
    }


def written_in(text: str, terms: Terms) -> str:
    """The text with constants for their names. Raises KeyError for a name that is none."""
    known = constants(terms)

    def value(match: re.Match[str]) -> str:
        members = known.get(match[1], {})
        if match[2] not in members:
            expected = f"{match[1]}. and one of {', '.join(members)}" if members else f"one of {', '.join(known)}"
            raise KeyError(f"{match[0]} is no constant: expected {expected}")
        return members[match[2]]

    return _CONSTANT.sub(value, in_order(text, RECORDS))


def _terms(terms: Terms) -> Members:
    named = {**asdict(terms), "audit_max": AUDIT_MAX, "control_max": CONTROL_MAX, "max_jobs": MAX_JOBS}
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


def _priorities() -> Members:
    return {"ALL": ", ".join(f"{priority} = true" for priority in Priority)}


def _positions(fields: Sequence[str]) -> Members:
    """Of a record's fields, from 1 on; ``WIDTH`` is how many, ``FIELDS`` their names as arguments."""
    numbers = {name: str(position) for position, name in enumerate(fields, 1)}
    return {**numbers, "WIDTH": str(len(fields)), "FIELDS": ", ".join(f"'{name}'" for name in fields)}


def _fields(numbers: Mapping[str, int]) -> str:
    return ", ".join(f"{name} = {number}" for name, number in numbers.items())
