"""Texts: the Lua of one operation, put together from the prelude, the libraries it needs and its own file.

``lib/`` has a noun a file, ``ops/`` an operation a file. What a file needs is in its first line, ``-- uses: …``,
libraries' too; they are put in so that each stands below what it uses, whatever the order in those lines.
"""

from __future__ import annotations

import re
from importlib.resources import files

PRELUDE = "lib/prelude"
_USES = re.compile(r"\A-- uses: (.+)\n")
_COMMENT = re.compile(r"^ *--.*\n", re.MULTILINE)


def text(operation: str) -> str:
    """The whole of it. Comments stay here: they are a third of the bytes that a server would keep."""
    return _COMMENT.sub("", "\n".join(map(read, parts(operation))))


def parts(operation: str) -> list[str]:
    """The files of that operation in the order of its text. Raises LookupError for one that is not there, and
    ValueError where libraries use each other in a circle."""
    ordered: list[str] = []
    _add(f"ops/{operation}", ordered, ())
    return [PRELUDE, *ordered]


def _add(part: str, ordered: list[str], users: tuple[str, ...]) -> None:
    if part in users:
        raise ValueError(f"Lua libraries use each other in a circle: {' → '.join((*users, part))}")
    if part in ordered:
        return
    for library in uses(part):
        try:
            _add(f"lib/{library}", ordered, (*users, part))
        except FileNotFoundError:
            raise LookupError(f"{part}.lua uses {library}, and there is no lib/{library}.lua") from None
    ordered.append(part)


def uses(part: str) -> list[str]:
    """The libraries that a file says it uses, by name."""
    match = _USES.match(read(part))
    return sorted(match[1].split()) if match else []


def read(part: str) -> str:
    """One file's text, such as ``lib/lanes`` or ``ops/claim``."""
    folder, name = part.split("/")
    return (files(__package__) / folder / f"{name}.lua").read_text(encoding="utf-8")
