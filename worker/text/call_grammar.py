"""CallGrammar: the grammar that calls of tools are held to while they are written, as llguidance reads it: Lark text.

Required calls are all of the answer; where they are free, text comes before and after, and only a call that has begun
is held. Pure: whether a grammar is small enough to be served is judged elsewhere. Knows no model.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from lorapool.shared.tools import Tool
from lorapool.worker.text.call_syntax import HERMES, CallSyntax
from lorapool.worker.text.tool_calls import MAX_CALLS

_AS_TRAINED = {  # as json.dumps writes it, which is what models have seen
    "whitespace_flexible": False,
    "item_separator": ", ",
    "key_separator": ": ",
    "coerce_one_of": True,
}


@dataclass(frozen=True, slots=True)
class CallGrammar:
    """Of calls of ``tools``, in this syntax; ``several`` after each other, or one. ``marks``: ids of those of the
    syntax's marks that are tokens of their own; ``beside``: other such tokens that free text may have."""

    tools: Sequence[Tool]
    several: bool
    syntax: CallSyntax = HERMES
    marks: Mapping[str, int] = field(default_factory=dict)
    beside: Sequence[int] = ()

    def required(self) -> str:
        """Nothing but calls."""
        return _rules_of(f"start: {self._calls()}", *self._rules(), *self._schemas())

    def instead_of(self, answer: str) -> str:
        """Calls, or an ``answer`` by that grammar, without calls."""
        nested = f"answer: %lark {{\n{answer}\n}}"
        return _rules_of(f"start: {self._calls()} | answer", *self._rules(), *self._schemas(), nested)

    def free(self) -> str:
        """Any text, with calls in it; a single one ends the answer."""
        shape = "segment* text" if self.several else "segment | text"
        text = ["text: /(.|\\n)*/"]
        if self.beside:
            text = ["text: part* /(.|\\n)*/", f"part: /(.|\\n)*/ <[{','.join(map(str, self.beside))}]>"]
        mark = self.marks.get(self.syntax.open)
        lead, close = "part* " if self.beside else "", self._mark(self.syntax.close)
        if mark is None:
            text += [f"segment: {lead}before body {close}", f"before[lazy]: /(.|\\n)*{_escaped(self.syntax.open)}/"]
        else:
            text += [f"segment: text <[{mark}]> body {close}"]
        return _rules_of(f"start: {shape}", *text, *self._bodies(), *self._schemas())

    def _calls(self) -> str:
        return f'call ("\\n" call){{0,{MAX_CALLS - 1}}}' if self.several else "call"

    def _rules(self) -> list[str]:
        return [f"call: {self._mark(self.syntax.open)} body {self._mark(self.syntax.close)}", *self._bodies()]

    def _bodies(self) -> list[str]:
        heads = (json.dumps(self.syntax.head(tool.name)) for tool in self.tools)
        bodies = [f"{head} arguments_{index}" for index, head in enumerate(heads)]
        tail = json.dumps(self.syntax.tail)
        return [f"body: ({' | '.join(bodies)}) {tail}"]

    def _schemas(self) -> list[str]:
        return [f"arguments_{index}: %json {json.dumps(_schema_of(tool))}" for index, tool in enumerate(self.tools)]

    def _mark(self, text: str) -> str:
        token_id = self.marks.get(text)
        return json.dumps(text) if token_id is None else f"<[{token_id}]>"


def _schema_of(tool: Tool) -> dict[str, Any]:
    """Of its arguments: an object, of the named properties alone unless it says otherwise. What llguidance cannot hold
    refuses a strict tool, and is left out of another's."""
    given = tool.parameters or {"properties": {}}
    closed = {"additionalProperties": False} if "properties" in given else {}
    return {**closed, **given, "type": "object", "x-guidance": {**_AS_TRAINED, "lenient": not tool.strict}}


def _rules_of(*rules: str) -> str:
    return "\n".join(rules) + "\n"


def _escaped(text: str) -> str:
    return re.escape(text).replace("/", "\\/")
