"""CallSyntax: how a model writes the call of a tool in its text: JSON between two marks.

Hermes' form, which many models were trained on, unless a tokenizer's own response template says otherwise. Knows
neither grammars nor how text is read.
"""

from __future__ import annotations

import json
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class CallSyntax:
    """``open`` and ``close``: the marks; ``gap``: what stands beside the JSON within them; ``name`` and ``arguments``:
    its two keys."""

    open: str = "<tool_call>"
    close: str = "</tool_call>"
    gap: str = "\n"
    name: str = "name"
    arguments: str = "arguments"

    def head(self, name: str) -> str:
        """All up to the arguments."""
        return f"{self.gap}{{{json.dumps(self.name)}: {json.dumps(name)}, {json.dumps(self.arguments)}: "

    @property
    def tail(self) -> str:
        """All after the arguments, but for the mark."""
        return f"}}{self.gap}"

    def written(self, name: str, arguments: str) -> str:
        """A whole call; ``arguments`` are JSON."""
        return f"{self.open}{self.head(name)}{arguments}{self.tail}{self.close}"


HERMES = CallSyntax()
