"""Files and functions that pages name are there."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from tests.docs.conftest import DOCS, ROOT

PAGES = [*sorted(ROOT.glob("*.md")), *sorted(DOCS.glob("*.md"))]
NAMED = re.compile(r"`((?:shared|producer|worker|tests|examples|benchmarks|deploy|docs)/[\w./-]+)(?:::([\w.]+))?`")
FUNCTION = re.compile(r"^local function (\w+)", re.MULTILINE)


def names_in(path: Path) -> set[str]:
    """Functions and classes of a source file; a method also by its class."""
    text = path.read_text()
    return set(FUNCTION.findall(text)) if path.suffix == ".lua" else set(_defined(ast.parse(text), ""))


def _defined(node: ast.AST, within: str) -> list[str]:
    found = []
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            found += [f"{within}{child.name}", *_defined(child, f"{within}{child.name}.")]
    return found


def missing(text: str) -> list[str]:
    """What a text names that is not there."""
    return [
        f"{path}::{name}" if name else path
        for path, name in NAMED.findall(text)
        if not (ROOT / path).exists() or (name and name not in names_in(ROOT / path))
    ]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_what_a_page_names_is_there(page: Path) -> None:
    """Every file, folder, class and function in backquotes exists under that name."""
    assert [] == missing(page.read_text())


def test_every_step_of_a_job_names_its_functions() -> None:
    """The walk of one job goes from the client to the client, and each of its steps names files and functions."""
    walk = (DOCS / "architecture.md").read_text().split("## The life of a job")[1].split("\n## ")[0]
    steps = re.split(r"(?m)^\d\. ", walk)[1:]
    assert 8 == len(steps)
    assert [] == [step for step in steps if len(NAMED.findall(step)) < 3]
    assert ("producer/client/client.py", "Client.submit") == NAMED.findall(steps[0])[0]
    assert ("producer/client/handle.py", "JobHandle.result") in NAMED.findall(steps[6])


def test_what_is_gone_is_seen() -> None:
    """A missing file, a missing method and a missing Lua function are all found."""
    text = (
        "`shared/gone.py` `producer/client/client.py::Client.submit` `producer/client/client.py::submit` "
        "`shared/scripts/ops/settle.lua::settle` `shared/scripts/ops/settle.lua::gone`"
    )
    assert ["shared/gone.py", "producer/client/client.py::submit", "shared/scripts/ops/settle.lua::gone"] == missing(
        text
    )
