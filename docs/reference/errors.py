"""The tree of errors, what each means and what it carries."""

from __future__ import annotations

import inspect
from collections.abc import Iterator

from docs.reference.markdown import code, prose, table
from lorapool.shared.errors import Fate, LorapoolError

HEAD = """# Errors

Every error that lorapool raises on purpose is a `LorapoolError`. `from lorapool.producer import …` has those that an
agent meets. A message names the key, the value, what was expected and what to do; `job_id` is the job that the error is
about, and `fate` what became of that submission.
"""


def page() -> str:
    rows = [(code(kind.__name__), _meaning(kind), _fields(kind)) for kind, _ in _tree(LorapoolError)]
    parts = [HEAD, "```text", *map(_line, _tree(LorapoolError)), "```\n", table(("error", "meaning", "carries"), rows)]
    return "\n".join([*parts, "## `Fate`\n", prose(Fate.__doc__)])


def _tree(kind: type[LorapoolError], depth: int = 0) -> Iterator[tuple[type[LorapoolError], int]]:
    """Depth first, in the order in which they are declared."""
    yield kind, depth
    for child in kind.__subclasses__():
        if child.__module__ == LorapoolError.__module__:
            yield from _tree(child, depth + 1)


def _line(entry: tuple[type[LorapoolError], int]) -> str:
    kind, depth = entry
    others = [base.__name__ for base in kind.__bases__ if not issubclass(base, LorapoolError) and base is not Exception]
    return "    " * depth + kind.__name__ + (f" (also {', '.join(others)})" if others else "")


def _meaning(kind: type[LorapoolError]) -> str:
    return prose(kind.__doc__)


def _fields(kind: type[LorapoolError]) -> str:
    if "__init__" not in vars(kind):
        return ""
    parameters = inspect.signature(kind).parameters.values()
    return " ".join(code(each.name) for each in parameters if each.kind is inspect.Parameter.KEYWORD_ONLY)
