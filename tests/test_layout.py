"""The shape of the source: sizes that keep it readable, and a page that knows every file."""

from __future__ import annotations

import ast
import statistics
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
PRODUCT = ("shared", "producer", "worker")


def sources(*folders: str) -> list[Path]:
    return sorted(path for folder in folders for path in (ROOT / folder).rglob("*.py"))


def functions(*folders: str) -> Iterator[tuple[str, int]]:
    """(where and name, lines) of every function."""
    for path in sources(*folders):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                yield f"{path.relative_to(ROOT)}:{node.name}", (node.end_lineno or node.lineno) - node.lineno + 1


def test_no_function_outgrows_a_screen():
    """No function of the product, the examples or the benchmarks has more than 60 lines, but for a command with a line
    a flag."""
    long = {name for name, lines in functions(*PRODUCT, "examples", "benchmarks") if lines > 60}
    assert {"producer/commands/jobs.py:submit"} == long


def test_functions_are_short():
    """Half of the product's functions have at most 7 lines, nine in ten at most 18: what they had, and little more."""
    lengths = [lines for _, lines in functions(*PRODUCT)]
    assert statistics.median(lengths) <= 7
    assert statistics.quantiles(lengths, n=10)[-1] <= 18


def test_no_file_outgrows_its_noun():
    """No source file has more than 400 lines, no test file more than 450."""
    limits = {400: sources(*PRODUCT, "examples", "benchmarks"), 450: sources("tests")}
    sizes = [(path, len(path.read_text().splitlines()), limit) for limit, paths in limits.items() for path in paths]
    assert not [(str(path.relative_to(ROOT)), lines) for path, lines, limit in sizes if lines > limit]


def test_architecture_page_has_a_line_for_every_folder():
    """The "What is where" of docs/architecture.md names each folder of the three packages, and none that is gone."""
    text = (ROOT / "docs/architecture.md").read_text().split("## What is where")[1].split("```")[1]
    listed: set[str] = set()
    above: list[tuple[int, str]] = []  # the folders that a line lies in, with their indents
    for line in text.splitlines():
        name, indent = (line.split() or [""])[0], len(line) - len(line.lstrip())
        if name.endswith("/"):
            above = [(width, folder) for width, folder in above if width < indent]
            above.append((indent, "".join(folder for _, folder in above[-1:]) + name))
            if above[0][1].rstrip("/") in PRODUCT:
                listed.add(above[-1][1])
    there = {f"{path.parent.relative_to(ROOT)}/" for path in sources(*PRODUCT)}
    assert there == listed
