"""What the docs site makes of pages that GitHub reads as they stand. The whole build, links checked, is `make docs`."""

from __future__ import annotations

import re
from importlib import import_module
from types import SimpleNamespace

import pytest

from docs.mkdocs_hooks import AT_ROOT, indented, on_page_markdown
from tests.docs.conftest import DOCS, ROOT


def on_site(page: str, text: str) -> str:
    return on_page_markdown(text, SimpleNamespace(file=SimpleNamespace(src_uri=page)))


@pytest.mark.parametrize(
    ("page", "link", "expected"),
    [
        ("index.md", "[docs/trust.md](docs/trust.md)", "[Trust: who may do what](trust.md)"),
        ("index.md", "[rules](docs/trust.md#tenants)", "[rules](trust.md#tenants)"),
        ("trust.md", "[home](../README.md)", "[home](index.md)"),
        ("reference/keys.md", "[all](../README.md)", "[all](../pages.md)"),
        ("chaos.md", "![plot](img/engine.png)", "![plot](img/engine.png)"),
        ("trust.md", "[below](#tenants) [far](https://example.com)", "[below](#tenants) [far](https://example.com)"),
        ("reference/modules.md", "[job.py](../../shared/job.py)", "job.py"),
        ("trust.md", "[lost](../shared/gone.py)", "[lost](../shared/gone.py)"),
    ],
)
def test_links_lead_to_pages(page: str, link: str, expected: str) -> None:
    """To the page that a file is there; a source file, which is none, is only named; a broken link stays broken."""
    assert expected == on_site(page, link)


def test_code_is_left_alone() -> None:
    """What looks like a link or a list in a block of code is neither."""
    text = "```python\n- x\n  y[0](docs/trust.md)\n```"
    assert text == on_site("index.md", text)


def test_lists_are_indented_by_four() -> None:
    """What belongs to an item stands where Python-Markdown looks for it, code in it included."""
    text = "Steps:\n1. One\n   more.\n\n   ```sh\n   make\n     x\n   ```\n   - in\n     text\n2. Two\n\nEnd."
    first = "Steps:\n\n1. One\n    more.\n\n    ```sh\n    make\n      x\n    ```\n"
    assert f"{first}    - in\n        text\n2. Two\n\nEnd." == "\n".join(
        line for line, _ in indented(text.splitlines())
    )


def test_every_page_is_in_the_navigation() -> None:
    """Each page of docs/, of its reference and of the root; and nothing else."""
    listed = set(re.findall(r"(?m)^ +- (?:.+: )?(\S+\.md)$", (ROOT / "mkdocs.yml").read_text()))
    there = {str(path.relative_to(DOCS)) for path in DOCS.rglob("*.md")} - {"README.md"}
    assert there | set(AT_ROOT.values()) == listed


def test_what_the_python_page_shows_is_there() -> None:
    """Each name that mkdocstrings is asked for can be imported."""
    named = re.findall(r"(?m)^::: (\S+)\.(\w+)$", (DOCS / "reference/python.md").read_text())
    assert len(named) > 5
    assert [] == [(module, name) for module, name in named if not hasattr(import_module(module), name)]
