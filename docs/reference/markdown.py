"""Markdown from plain texts: tables, and docstrings as prose. Knows no code."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

_SENTENCE = re.compile(r".+?[.!?](?=\s|$)|.+", re.DOTALL)


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table; cells are Markdown of one line, in which a bar is no border."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |" for line in lines) + "\n"


def prose(text: str | None) -> str:
    """A docstring as one line of Markdown: double backquotes are single ones, line breaks are spaces."""
    return " ".join((text or "").replace("``", "`").split())


def first_sentence(text: str | None) -> str:
    """Of a docstring, up to the first full stop, or its first paragraph."""
    paragraph = prose((text or "").strip().split("\n\n")[0])
    match = _SENTENCE.match(paragraph)
    return match[0] if match else ""


def code(text: object) -> str:
    return f"`{text}`"
