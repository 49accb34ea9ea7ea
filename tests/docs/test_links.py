"""The README stays short, every page can be reached, and no link leads nowhere."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.docs.conftest import DOCS, ROOT
from tests.docs.markdown import anchors, broken, links

PAGES = [*sorted(ROOT.glob("*.md")), *sorted(DOCS.glob("*.md"))]


def test_readme_is_short() -> None:
    """At most ten kilobytes: what does not fit has a page of its own."""
    assert len((ROOT / "README.md").read_bytes()) <= 10_240


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_no_link_leads_nowhere(page: Path) -> None:
    """Each relative link names a file that is there, and each anchor a heading of it."""
    assert [] == broken(page)


def test_every_page_stands_in_the_index() -> None:
    """docs/README.md links each page of its folder, and the README links the index."""
    assert {page.name for page in DOCS.glob("*.md")} - {"README.md"} <= set(links(DOCS / "README.md"))
    assert "docs/README.md" in links(ROOT / "README.md")


def test_broken_links_are_seen(tmp_path: Path) -> None:
    """A missing file and a missing heading are found; code is no link, and other sites are not looked at."""
    page = tmp_path / "page.md"
    page.write_text(
        "# One `two`, (three)\n## Again\n## Again\n[a](page.md#again-1) [b](#one-two-three) [c](gone.md) [d](#gone)\n"
        "`[e](code.md)` [f](https://example.com/x)\n```text\n# no heading [g](code.md)\n```\n"
    )
    assert {"one-two-three", "again", "again-1"} == anchors(page)
    assert ["gone.md", "#gone"] == broken(page)
