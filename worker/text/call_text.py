"""CallText: the call of a tool while it is written: an object of JSON with a name and arguments.

Tells what is certain of it so far. Knows neither marks nor which tools there are.
"""

from __future__ import annotations

import json

from lorapool.shared.plain_text import encodable
from lorapool.worker.text.call_syntax import CallSyntax
from lorapool.worker.text.json_scan import JsonScan, is_object

MAX_NAME = 256  # characters of JSON


class CallText:
    """``raw``: all of it as it was written. ``name``: None until it is known; ``arguments``: likewise."""

    def __init__(self, syntax: CallSyntax, before: str) -> None:
        self.name: str | None = None
        self.arguments: str | None = None
        self._syntax, self._scan = syntax, JsonScan()
        self._raw = [before]
        self._key = ""  # as it is written
        self._value: list[str] | None = None  # of that key
        self._fresh: list[str] = []  # of the arguments, not handed out
        self._handed = False
        self._wrong = False

    @property
    def raw(self) -> str:
        return "".join(self._raw)

    @property
    def whole(self) -> bool:
        """It is a call, and all of it is there."""
        return self._scan.whole and not self._wrong and self.name is not None

    @property
    def over(self) -> bool:
        """Nothing more belongs to it: it is whole, or no call."""
        return self._scan.whole or self._scan.broken

    @property
    def in_arguments(self) -> bool:
        """The name is known, and the object of its arguments has begun."""
        return self.name is not None and self._is_arguments and (self._handed or self._fresh[:1] == ["{"])

    def read(self, text: str, at: int) -> int:
        """Read on in ``text``, up to its end or to that of the call; return where."""
        start = at
        while at < len(text) and not self.over:
            at = self._piece(text, at)
        self._raw.append(text[start:at])
        return at

    def take_arguments(self) -> str:
        """What came of the arguments since the last time; of a call that has none, those of no argument."""
        if self._scan.whole and not self._handed:
            self._fresh = [self.arguments or "{}"]
        fresh, self._fresh, self._handed = "".join(self._fresh), [], True
        return fresh

    def _piece(self, text: str, at: int) -> int:
        scan = self._scan
        if not scan.depth and text[at] not in "{ \t\n\r":
            scan.broken = True
            return at
        before, in_key = scan.expected, scan.in_key
        end = scan.step(text, at)
        if self._value is not None:
            self._add(self._value, text[at:end])
            if scan.depth == 1 and scan.expected == "comma or end":
                self._end_value("".join(self._value))
        elif in_key or scan.in_key:
            self._key = text[at:end] if not in_key else self._key + text[at:end]
            scan.broken |= len(self._key) > MAX_NAME
        elif before == "colon" and scan.expected == "value":
            self._value = []
        return end

    def _add(self, value: list[str], piece: str) -> None:
        if value or not piece.isspace():
            value.append(piece)
            if self._is_arguments:
                self._fresh.append(piece)

    def _is(self, key: str) -> bool:
        return self._key == json.dumps(key)

    @property
    def _is_arguments(self) -> bool:
        return self._is(self._syntax.arguments)

    def _end_value(self, value: str) -> None:
        self._value = None
        if self._is(self._syntax.name):
            self._wrong |= self.name is not None or not value.startswith('"') or len(value) > MAX_NAME
            self.name = None if self._wrong else str(json.loads(value))
        elif self._is_arguments:
            self._wrong |= self.arguments is not None
            self.arguments = _arguments(value)
            self._wrong |= self.arguments is None


def _arguments(value: str) -> str | None:
    """An object, or a text that holds one, as some models write it; None for anything else."""
    if value.startswith('"'):
        value = encodable(json.loads(value))
    if value == "null":
        return "{}"
    return value if is_object(value) else None
