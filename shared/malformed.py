"""Malformed: what stands in Redis and is no such thing as lorapool writes there: told, counted, stepped over.

Anything may be written into a pool's keys: by hand, by a stranger's client, by a release to come. Who reads many
things steps over what cannot be read (``readable``); who was asked for exactly one thing says so (``required``). Counts
are this process's; what scripts dropped is counted in Redis, in ``lp:{<pool>/<partition>}:malformed``.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeVar

from lorapool.shared.errors import MalformedEntry, UnsupportedVersion

T = TypeVar("T")
R = TypeVar("R")

# What reading a stranger's bytes may raise. InvalidRequest, UnicodeError, pydantic's and msgpack's are ValueErrors.
UNREADABLE = (
    MalformedEntry, UnsupportedVersion,
    ValueError, LookupError, TypeError, AttributeError, ArithmeticError, RecursionError,
)  # fmt: skip
MOST = 1e300  # of a number that is counted: beyond, sums and means are no numbers
SHOWN = 200  # characters of what was met, in the log and in errors

_met: Counter[str] = Counter()


def total() -> int:
    """How many this process has met."""
    return _met.total()


def step_over(what: str, item: object, error: Exception) -> None:
    """Count one, and tell the first of its kind, the second, the fourth and so on: a flood must not fill the log."""
    _met[what] += 1
    if _met[what].bit_count() != 1:
        return
    import structlog  # here, so that a client which never needs it does not wait for its import

    if structlog.is_configured():  # else it would print on the stdout of whoever imports us
        facts = {"what": what, "found": shown(item), "error": f"{type(error).__name__}: {error!s:.{SHOWN}}"}
        structlog.get_logger("lorapool").warning("malformed, stepped over", met=_met[what], **facts)


def readable(what: str, items: Iterable[T], read: Callable[[T], R]) -> list[R]:
    """What ``read`` makes of each that it can read, in order."""
    sound: list[R] = []
    for item in items:
        try:
            sound.append(read(item))
        except UNREADABLE as error:
            step_over(what, item, error)
    return sound


def required(what: str, read: Callable[[], R]) -> R:
    """What ``read`` makes of the one thing asked for. Raises MalformedEntry, or UnsupportedVersion as it came."""
    try:
        return read()
    except (MalformedEntry, UnsupportedVersion):
        raise
    except UNREADABLE as error:
        raise MalformedEntry(
            f"{what} cannot be read: {error!s:.{SHOWN}}; it was not written by lorapool, or changed since"
        ) from error


def number(text: Any, default: float = 0.0) -> float:
    """A finite number as it stands in a hash; ``default`` for what is none."""
    try:
        value = float(text)
    except (TypeError, ValueError):
        return default
    return value if abs(value) < MOST else default


def shown(item: object) -> str:
    """An excerpt that any log and any terminal takes."""
    return ascii(item)[:SHOWN]


def text_map(answer: Any) -> dict[str, str]:
    """A hash as HGETALL (a map) or a script (a flat list) gives it, as text, whatever its bytes are."""
    if isinstance(answer, Exception):  # of a pipeline
        raise answer
    pairs = answer.items() if isinstance(answer, Mapping) else zip(answer[::2], answer[1::2], strict=True)
    return {name.decode(errors="replace"): value.decode(errors="replace") for name, value in pairs}


def numbers(answer: Any) -> dict[str, int | float]:
    """A hash of counters."""
    return dict(readable("counter", sorted(text_map(answer).items()), _counter))


def whole_numbers(answer: Any) -> dict[str, int]:
    """A hash of numbers of jobs."""
    return dict(readable("number", text_map(answer).items(), lambda field: (field[0], int(field[1]))))


def _counter(field: tuple[str, str]) -> tuple[str, int | float]:
    name, value = field
    counted = float(value) if "." in value else int(value)
    if not abs(counted) < MOST:
        raise ValueError(f"{name} = {value!r:.40}: expected a number")
    return name, counted
