"""Wire: the base of all that travels, and how a complaint about one of it reads.

Frozen, no field unknown, no number that is none. Knows no noun of ours.
"""

from __future__ import annotations

from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from lorapool.shared.errors import InvalidRequest


class Wire(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


T = TypeVar("T", bound=Wire)


def parsed(kind: type[T], name: str, given: Any) -> T:
    """One of ``kind``. Raises InvalidRequest, which calls it ``name``."""
    try:
        return kind.model_validate(given)
    except ValidationError as error:
        raise InvalidRequest(f"{name}: {explain_validation(error)}") from None


def explain_validation(error: ValidationError) -> str:
    """One line: each bad field, its value (shortened) and what was expected."""
    parts = []
    for item in error.errors(include_url=False):
        where, value = ".".join(str(part) for part in item["loc"]), _shown(item["input"])
        place = f"{where} = {value if len(value) <= 60 else value[:57] + '...'}: " if where else ""
        parts.append(place + item["msg"].removeprefix("Value error, "))
    return "; ".join(parts)


def _shown(value: Any) -> str:
    try:
        return repr(value)
    except RecursionError:  # it lies deeper than the stack
        return f"a {type(value).__name__} that lies too deep"
