"""Each module of the three packages, with the first sentence of its docstring; each Lua text, with its first line."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

from docs.reference.markdown import first_sentence, table

ROOT = Path(__file__).parents[2]
PACKAGES = ("shared", "producer", "worker")
HEAD = """# Modules

Every file of the three packages, folder by folder. [architecture.md](../architecture.md) walks one job through them.
"""
_COMMENTS = re.compile(r"(?:^--(?!\s*uses:).*\n)+", re.MULTILINE)
_NAMED = re.compile(r"^(`?\w+`?): ")


def page() -> str:
    parts = [HEAD]
    for folder in folders():
        summary = summary_of(folder / "__init__.py")
        parts += [f"## `{folder.relative_to(ROOT)}/`\n", *([summary + "\n"] if summary else []), _table(folder)]
    return "\n".join(parts)


def folders() -> Iterator[Path]:
    """The folders that hold a source, parents first."""
    for package in PACKAGES:
        found = {path.parent for path in (ROOT / package).rglob("*") if path.suffix in {".py", ".lua"}}
        yield from sorted(found)


def summary_of(path: Path) -> str:
    """What a file says of itself in one sentence; empty if there is no such file."""
    if not path.exists():
        return ""
    return _of_lua(path) if path.suffix == ".lua" else first_sentence(ast.get_docstring(ast.parse(path.read_text())))


def _of_lua(path: Path) -> str:
    match = _COMMENTS.search(path.read_text())
    lines = [line.removeprefix("--").strip() for line in match[0].splitlines()] if match else []
    before_keys = " ".join(lines).partition("KEYS[1]")[0]
    return first_sentence(before_keys)


def _table(folder: Path) -> str:
    files = sorted(path for path in folder.iterdir() if path.suffix in {".py", ".lua"} and path.name != "__init__.py")
    rows = [(f"[{path.name}](../../{path.relative_to(ROOT)})", _without_name(summary_of(path))) for path in files]
    return table(("file", ""), rows)


def _without_name(sentence: str) -> str:
    """The sentence after the name that some begin with: ``Heartbeat: tells …`` is ``Tells …``."""
    rest = _NAMED.sub("", sentence)
    return rest[:1].upper() + rest[1:]
