"""Expressions: the keys of an adapter's ``rank_pattern`` and ``alpha_pattern``, matched in linear time.

PEFT means Python regular expressions, whose backtracking can take for ever, so they are run by RE2, which cannot.
Served is what both read alike on a module's path, token by token of an allow-list; the rest is refused by name. Knows
nothing of what the keys stand for.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from typing import Any

import re2

from lorapool.shared.errors import CheckpointError

MAX_LENGTH = 512
MAX_REPEATED = 4096  # characters of an expression, times all that its {m,n} repeat
MAX_EFFORT = 1 << 26  # repeated characters of all expressions × modules: seconds, at worst
_TOKEN = re.compile(
    r"""
      (?P<repeat> \{ [0-9]{1,3} (?:,[0-9]{0,3})? \} )
    | \\ [dDwWsSbB]
    | \\ [!-/:-@\[-`{-~]                           # an escaped sign is itself
    | \[ \^? \]? (?: \\[dDwWsS] | \\[!-/:-@\[-`{-~] | (?!--)[ -Z^-`a-{}] )* \]
    | \( \?: | \( (?!\?) | [)|^$.]
    | [*+?] \?? (?![*+])                           # none possessive
    | [ !"\#%&',\-/0-9:;<=>@A-Z_`a-z~\]}]
    """,
    re.VERBOSE,
)
_PATH = re.compile(r"[!-~]*")
_OPTIONS = re2.Options()
_OPTIONS.log_errors, _OPTIONS.never_capture, _OPTIONS.max_mem = False, True, 1 << 20


class Expressions:
    """Regular expressions in order; ``name`` is the field that they come from."""

    def __init__(self, name: str, expressions: Iterable[str]) -> None:
        """Raises CheckpointError naming the field and the expression that is not served."""
        self._name = name
        self._compiled = {text: _compiled(name, text) for text in expressions}
        self._repeated = sum(map(_repeated, self._compiled))

    def first(self, path: str) -> str | None:
        """The first that PEFT would match with the module at ``path`` (``peft.utils.other.get_pattern_key``)."""
        if self._compiled and not _PATH.fullmatch(path):
            raise CheckpointError(f"{self._name}: module {path!r:.80} is not plain ASCII, so no expression is matched")
        return next((text for text, compiled in self._compiled.items() if compiled.match(path)), None)

    def check_effort(self, modules: int) -> None:
        """Raises CheckpointError where so many expressions and modules would take long in linear time too."""
        if self._repeated * modules > MAX_EFFORT:
            raise CheckpointError(
                f"{self._name}: {len(self._compiled):,} expressions of {self._repeated:,} characters on {modules:,} "
                f"modules are too many: at most {MAX_EFFORT:,} characters × modules"
            )


def _compiled(name: str, text: str) -> Any:
    _check_length(name, text)
    _check_tokens(name, text)
    whole = rf"(.*\.)?({text})$"
    try:
        for alone in (text, whole):  # as PEFT puts it together, and by itself: its brackets must pair within it
            re.compile(alone)
        return re2.compile(whole, _OPTIONS)
    except (re.error, re2.error, RecursionError, OverflowError) as error:
        raise CheckpointError(f"{name}: {_short(text)} is not a regular expression ({_words(error)})") from None


def _check_length(name: str, text: str) -> None:
    if len(text) > MAX_LENGTH or _repeated(text) > MAX_REPEATED:
        raise CheckpointError(
            f"{name}: the expression {_short(text)} is too long (at most {MAX_LENGTH} characters, {MAX_REPEATED:,} "
            f"with what is repeated)"
        )


def _check_tokens(name: str, text: str) -> None:
    """Refuse all that Python and RE2 could read differently: look-around, back-references, flags, possessive repeats,
    classes of classes, what is not printable ASCII."""
    at = 0
    while at < len(text):
        token = _TOKEN.match(text, at)
        if token is None:
            raise CheckpointError(
                f"{name}: the expression {_short(text)} is not served from {_short(text[at:])} on: names, classes, "
                f"groups, alternatives and repeats are, look-around, back-references and flags are not"
            )
        at = token.end()


def _repeated(text: str) -> int:
    """Its length, times what its counted repeats may multiply it by."""
    highest = (max(1, *map(int, re.findall(r"[0-9]+", repeat[0]))) for repeat in _repeats(text))
    return len(text) * math.prod(highest)


def _repeats(text: str) -> Iterable[re.Match[str]]:
    return re.finditer(r"\{[0-9]{1,3}(?:,[0-9]{0,3})?\}", text[:MAX_LENGTH])


def _words(error: Exception) -> str:
    reason = error.args[0] if error.args else type(error).__name__
    return reason.decode(errors="replace") if isinstance(reason, bytes) else str(reason)


def _short(text: str) -> str:
    shown = repr(text)
    return shown if len(shown) <= 80 else f"{shown[:77]}..."
