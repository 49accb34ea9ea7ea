"""ToolCalls: what of an answer's text is content, and what are calls of tools.

Reads as the text comes, each character once, and gives what is certain. What only looks like a call (no JSON, no tool
of that name, never closed) is content as it was written. Knows characters and marks; neither tokens nor the tools'
schemas.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import NamedTuple, Protocol

from lorapool.shared.tools import ToolCall, ToolCallDelta, call_id
from lorapool.worker.text.call_syntax import HERMES, CallSyntax
from lorapool.worker.text.call_text import CallText

MAX_CALLS = 128  # of one answer; what looks like more is text


class Parsed(NamedTuple):
    """What new text became: ``text`` of the content, pieces of calls."""

    text: str = ""
    calls: tuple[ToolCallDelta, ...] = ()


class CallParser(Protocol):
    """Tells content from calls."""

    @property
    def calls(self) -> tuple[ToolCall, ...]:
        """Those so far."""
        ...

    def push(self, text: str) -> Parsed:
        """Take more of the answer."""
        ...

    def finish(self) -> Parsed:
        """Nothing more comes: give what was held back."""
        ...


class Tally:
    """The calls of one answer, and what of them and of the content was not yet handed out."""

    def __init__(self, job_id: str, most: int = MAX_CALLS) -> None:
        self._job_id, self._most = job_id, most
        self._calls: list[tuple[str, str, list[str]]] = []
        self._text: list[str] = []
        self._deltas: list[ToolCallDelta] = []

    @property
    def calls(self) -> tuple[ToolCall, ...]:
        return tuple(ToolCall(id=id_, name=name, arguments="".join(told)) for id_, name, told in self._calls)

    @property
    def is_full(self) -> bool:
        return len(self._calls) >= self._most

    def show(self, text: str) -> None:
        """It is content."""
        self._text.append(text)

    def begin(self, name: str) -> None:
        """A new call."""
        index = len(self._calls)
        self._calls.append((call_id(self._job_id, index), name, []))
        self._deltas.append(ToolCallDelta(index=index, id=self._calls[-1][0], name=name))

    def add(self, arguments: str) -> None:
        """More of the newest call's arguments."""
        if arguments:
            self._calls[-1][2].append(arguments)
            self._deltas.append(ToolCallDelta(index=len(self._calls) - 1, arguments=arguments))

    def take(self) -> Parsed:
        """What is new."""
        parsed = Parsed("".join(self._text), tuple(self._deltas))
        self._text, self._deltas = [], []
        return parsed


class ToolCalls:
    """Calls that are JSON between two marks, of tools with one of these ``names``.

    ``held``: a grammar holds what is written to its form, so that arguments are given as they come; else a call is
    given once it is whole, since what was given cannot be taken back.
    """

    def __init__(self, names: Collection[str], tally: Tally, syntax: CallSyntax = HERMES, *, held: bool) -> None:
        self._names, self._tally, self._syntax, self._held = frozenset(names), tally, syntax, held
        self._pending = ""  # may be the beginning of a mark
        self._blanks: list[str] = []  # what a call that follows takes with it
        self._call: CallText | None = None
        self._begun = False  # that call was told of
        self._closing = False  # its JSON is whole, its mark is not
        self._after_call = False

    @property
    def calls(self) -> tuple[ToolCall, ...]:
        return self._tally.calls

    def push(self, text: str) -> Parsed:
        """Take more of the answer."""
        text, self._pending, at = self._pending + text, "", 0
        while at < len(text):
            if self._closing:
                at = self._close(text, at)
            elif self._call is not None:
                at = self._read(self._call, text, at)
            else:
                at = self._look(text, at)
        return self._tally.take()

    def finish(self) -> Parsed:
        """Nothing more comes."""
        if self._call is not None:
            self._drop(self._call)
        elif not self._closing:
            self._show(self._pending)
            if not self._after_call:
                self._tally.show("".join(self._blanks))
        self._pending, self._blanks = "", []
        return self._tally.take()

    def _look(self, text: str, at: int) -> int:
        """For the mark that opens a call."""
        opening = self._syntax.open
        found = -1 if self._tally.is_full else text.find(opening, at)
        if found < 0:
            end = len(text) - _beginning(opening, text[at:])
            self._show(text[at:end])
            self._pending = text[end:]
            return len(text)
        self._show(text[at:found])
        self._call, self._begun = CallText(self._syntax, "".join([*self._blanks, opening])), False
        self._blanks = []
        return found + len(opening)

    def _read(self, call: CallText, text: str, at: int) -> int:
        at = call.read(text, at)
        if not self._begun and call.name in self._names and (call.whole or (self._held and call.in_arguments)):
            self._begun = True
            self._tally.begin(str(call.name))
        if self._begun:
            self._tally.add(call.take_arguments())
        if call.whole and self._begun:
            self._call, self._closing = None, True
        elif call.over:
            self._drop(call)
        return at

    def _close(self, text: str, at: int) -> int:
        """Over what stands between a call's JSON and its end; anything but blanks and the mark is content."""
        rest = text[at:].lstrip()
        if self._syntax.close.startswith(rest) and rest != self._syntax.close:
            self._pending = rest
            return len(text)
        self._closing, self._after_call = False, True
        return len(text) - len(rest) + (len(self._syntax.close) if rest.startswith(self._syntax.close) else 0)

    def _drop(self, call: CallText) -> None:
        """It broke off: what was told of it stands, else it is content."""
        self._call, self._after_call = None, self._begun
        if not self._begun:
            self._tally.show(call.raw)

    def _show(self, text: str) -> None:
        """As content; blanks at its end wait for what follows."""
        if content := text.rstrip():
            self._tally.show("".join([*self._blanks, content]))
            self._blanks, self._after_call = [], False
        self._blanks.append(text[len(content) :])


def _beginning(mark: str, text: str) -> int:
    """Length of the longest end of ``text`` that begins the mark."""
    sizes = range(min(len(mark) - 1, len(text)), 0, -1)
    return next((size for size in sizes if mark.startswith(text[-size:])), 0)
