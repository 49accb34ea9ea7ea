"""docs/containment.md claims nothing that no test shows."""

from __future__ import annotations

import ast
import re
from pathlib import Path

from tests.docs.conftest import DOCS, ROOT

SUITE = ROOT / "tests/containment"
NAMED = re.compile(r"`(test_\w+\.py)::(test_\w+)`")


def named() -> set[tuple[str, str]]:
    """(file, test) of every line of the page's table."""
    return set(NAMED.findall((DOCS / "containment.md").read_text()))


def functions_in(path: Path) -> set[tuple[str, str]]:
    nodes = ast.walk(ast.parse(path.read_text()))
    functions = (node.name for node in nodes if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))
    return {(path.name, name) for name in functions if name.startswith("test_")}


def test_every_named_test_exists() -> None:
    """By file and name."""
    there = set().union(*(functions_in(path) for path in SUITE.glob("test_*.py")))
    assert named() <= there, sorted(named() - there)


def test_every_line_names_a_test() -> None:
    """No claim of the tables without one."""
    lines = [line for line in (DOCS / "containment.md").read_text().splitlines() if line.startswith("| ")]
    assert [] == [line for line in lines if not line.startswith("| fault") and not NAMED.search(line)]


def test_no_fault_is_left_out() -> None:
    """Every file of the suite stands in the table."""
    assert {path.name for path in SUITE.glob("test_*.py")} == {file for file, _ in named()}
