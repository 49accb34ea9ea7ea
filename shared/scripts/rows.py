"""Rows: tables of the Lua texts whose fields are named where they are written, and stand in a record's order in the
text that runs: ``HEAD { ref = job.ref, id = job.id, … }`` becomes ``{ job.id, job.ref, … }``.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

Records = Mapping[str, Sequence[str]]  # fields in their order, by name
_OPENING = re.compile(r"\b([A-Z][A-Z_]+) \{")
_TOKEN = re.compile(r"'(?:[^'\\]|\\.)*'|.", re.DOTALL)
_FIELD = re.compile(r"\s*(\w+) = (.+?)\s*", re.DOTALL)


def fields_by_name(*classes: Any) -> Records:
    """Of named tuples, by the name that the Lua texts have for each: ``PurgeDead`` is ``PURGE_DEAD``."""
    return {re.sub(r"(?<=[a-z])(?=[A-Z])", "_", each.__name__).upper(): each._fields for each in classes}


def in_order(text: str, records: Records) -> str:
    """The text with such tables in their order. Raises KeyError for one that lacks a field or has another."""
    written, place = [], 0
    while match := _OPENING.search(text, place):
        end, values = _values(text, match.end())
        written += [text[place : match.start()], _row(match[1], values, records[match[1]])]
        place = end
    return "".join([*written, text[place:]])


def _row(name: str, values: Sequence[str], fields: Sequence[str]) -> str:
    named = {field[1]: field[2] for field in map(_FIELD.fullmatch, values) if field}
    if set(named) != set(fields) or len(values) != len(fields):
        wrong = ", ".join(sorted(set(named) ^ set(fields))) or "a field twice or without a name"
        raise KeyError(f"{name} {{ … }} is not that record: {wrong}; expected {', '.join(fields)}")
    return f"{{ {', '.join(named[field] for field in fields)} }}"


def _values(text: str, start: int) -> tuple[int, list[str]]:
    """Where the table that begins there ends, and what stands between its commas."""
    values, depth = [""], 0
    for place, token in _tokens(text, start):
        if token == "}" and depth == 0:
            return place + 1, [value for value in values if value.strip()]
        if token == "," and depth == 0:
            values.append("")
        else:
            depth += (token in "({[") - (token in ")}]")
            values[-1] += token
    raise KeyError(f"a table is not closed: {text[start : start + 60]!r}")


def _tokens(text: str, start: int) -> Iterator[tuple[int, str]]:
    return ((match.start(), match[0]) for match in _TOKEN.finditer(text, start))
