"""JsonScan: JSON read a piece at a time, as it comes: where a value ends, or which character breaks it.

Linear and without recursion, however long or deep the text of a stranger is. Says nothing of what a value means, and
builds none.
"""

from __future__ import annotations

import re
from typing import Literal

MAX_DEPTH = 128
_BLANK = re.compile(r"[ \t\n\r]+")
_PLAIN = re.compile(r'[^"\\\x00-\x1f]+')  # of a string
_BARE = re.compile(r"[-+.0-9A-Za-z]+")  # of a number or a word
_WHOLE = re.compile(r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?|true|false|null")
_ESCAPED, _HEX = frozenset('"\\/bfnrt'), frozenset("0123456789abcdefABCDEF")
MAX_BARE = 64  # characters of a number

Expected = Literal["value", "item or end", "key or end", "key", "colon", "comma or end", "string", "escape", "bare"]


class JsonScan:
    """One value. ``whole``: it has ended; ``broken``: it is none. ``expected``: what comes next, or is under way."""

    def __init__(self) -> None:
        self.whole = self.broken = False
        self._open: list[str] = []  # the closing brackets that are due
        self.expected: Expected = "value"
        self._is_key = False  # the string that is read
        self._digits = 0  # of \uXXXX that are due
        self._bare = ""

    @property
    def depth(self) -> int:
        """Objects and lists that are open."""
        return len(self._open)

    @property
    def in_key(self) -> bool:
        """The next piece belongs to a key that has begun."""
        return self._is_key and self.expected in {"string", "escape"}

    def step(self, text: str, at: int) -> int:
        """Read one piece of ``text`` from ``at`` on: blanks, a bracket, a run of a string; return where it ends. With
        ``broken`` or ``whole`` set by a number's end nothing was read."""
        if self.expected == "string":
            return self._string(text, at)
        if self.expected == "escape":
            return self._escape(text[at], at)
        if self.expected == "bare":
            return self._word(text, at)
        if blank := _BLANK.match(text, at):
            return blank.end()
        return self._mark(text[at], at)

    def _mark(self, mark: str, at: int) -> int:
        expected = self.expected
        if self._open and mark == self._open[-1] and expected in {"item or end", "key or end", "comma or end"}:
            self._open.pop()
            return self._ended(at + 1)
        if expected == "comma or end" and mark == ",":
            self.expected = "key" if self._open[-1] == "}" else "value"
        elif expected == "colon" and mark == ":":
            self.expected = "value"
        elif expected in {"key", "key or end"} and mark == '"':
            self._is_key, self.expected = True, "string"
        elif expected in {"value", "item or end"}:
            return self._begin(mark, at)
        else:
            return self._break(at)
        return at + 1

    def _begin(self, mark: str, at: int) -> int:
        if mark == '"':
            self._is_key, self.expected = False, "string"
        elif mark in "{[" and len(self._open) < MAX_DEPTH:
            self._open.append("}" if mark == "{" else "]")
            self.expected = "key or end" if mark == "{" else "item or end"
        elif mark in "-0123456789tfn":
            self._bare, self.expected = "", "bare"
            return at
        else:
            return self._break(at)
        return at + 1

    def _string(self, text: str, at: int) -> int:
        if self._digits:
            if text[at] not in _HEX:
                return self._break(at)
            self._digits -= 1
            return at + 1
        if plain := _PLAIN.match(text, at):
            return plain.end()
        if text[at] == "\\":
            self.expected = "escape"
            return at + 1
        if text[at] != '"':
            return self._break(at)
        if self._is_key:
            self._is_key, self.expected = False, "colon"
            return at + 1
        return self._ended(at + 1)

    def _escape(self, mark: str, at: int) -> int:
        if mark != "u" and mark not in _ESCAPED:
            return self._break(at)
        self._digits, self.expected = 4 if mark == "u" else 0, "string"
        return at + 1

    def _word(self, text: str, at: int) -> int:
        if run := _BARE.match(text, at):
            self._bare += run.group()
            return run.end() if len(self._bare) <= MAX_BARE else self._break(at)
        return self._ended(at) if _WHOLE.fullmatch(self._bare) else self._break(at)

    def _ended(self, at: int) -> int:
        """A value has."""
        self.expected = "comma or end"
        self.whole = not self._open
        return at

    def _break(self, at: int) -> int:
        self.broken = True
        return at


def is_object(text: str) -> bool:
    """Whether the whole text is one JSON object."""
    scan, at = JsonScan(), 0
    while at < len(text) and not (scan.whole or scan.broken):
        at = scan.step(text, at)
    return scan.whole and text.lstrip().startswith("{") and not text[at:].strip()
