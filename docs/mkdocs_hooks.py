"""What mkdocs is told beside mkdocs.yml: the pages at the root, and what GitHub reads otherwise than Python-Markdown.

The README is the site's first page, and CONTRIBUTING, SECURITY and CHANGELOG are pages too, so their links, which lead
into docs/ on GitHub, lead to pages here. Links to source files lose their target: the site has pages alone.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mkdocs.structure.files import Files

ROOT = Path(__file__).parents[1]
# Where a file of the repository is a page of the site; all others below docs/ are where they lie.
AT_ROOT = {
    "README.md": "index.md",
    "CONTRIBUTING.md": "contributing.md",
    "SECURITY.md": "security.md",
    "CHANGELOG.md": "changelog.md",
    "docs/README.md": "pages.md",
}
_FENCE = re.compile(r"^(?P<indent> *)(?P<mark>```+|~~~+)")
_ITEM = re.compile(r"^(?P<indent> *)(?P<mark>[-*]|\d+\.) +")
_LINK = re.compile(r"(?P<text>!?\[[^\]]*\])\((?P<target>[^()\s]+)\)")
_ELSEWHERE = re.compile(r"^(?:[a-z]+:|#)")


def on_files(files: Files, config: Any) -> Files:
    """Put the root's pages among those of docs/, and docs/README.md beside them."""
    from mkdocs.structure.files import File

    if there := files.get_file_from_path("README.md"):
        files.remove(there)
    for source, page in AT_ROOT.items():
        files.append(File.generated(config, page, content=(ROOT / source).read_text()))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """The page as Python-Markdown wants it, its links leading to pages of the site."""
    source = _source_of(page.file.src_uri)
    lines = list(indented(markdown.splitlines()))
    return "\n".join(line if fenced else _LINK.sub(lambda link: _link(link, source), line) for line, fenced in lines)


def _source_of(page: str) -> str:
    """The file in the repository that a page is made from."""
    pages = {target: source for source, target in AT_ROOT.items()}
    return pages.get(page, f"docs/{page}")


def _page_of(source: str) -> str | None:
    """The page, or the picture, that a file of the repository is on the site."""
    if source in AT_ROOT:
        return AT_ROOT[source]
    return source.removeprefix("docs/") if source.startswith("docs/") and not source.endswith(".py") else None


def _link(link: re.Match[str], source: str) -> str:
    target, _, anchor = link["target"].partition("#")
    if not target or _ELSEWHERE.match(target):
        return link[0]
    leads_to = posixpath.normpath(posixpath.join(posixpath.dirname(source), target))
    page = _page_of(leads_to)
    if page is None:
        return link["text"].removeprefix("[").removesuffix("]") if (ROOT / leads_to).exists() else link[0]
    here = _page_of(source) or source
    relative = posixpath.relpath(page, posixpath.dirname(here) or ".")
    text = f"[{_title(leads_to)}]" if link["text"].endswith(".md]") else link["text"]
    return f"{text}({relative}{'#' + anchor if anchor else ''})"


def _title(source: str) -> str:
    """A page is called by its heading here, not by its file."""
    path = ROOT / source
    heading = re.search(r"^# (.+)$", path.read_text(), re.MULTILINE) if path.exists() else None
    return heading[1] if heading else source


def indented(lines: list[str]) -> Iterator[tuple[str, bool]]:
    """Each line, and whether it is code. What belongs to an item of a list is indented by four, and a list begins a
    paragraph of its own: GitHub asks for neither."""
    within: list[int] = []  # of the items around a line, where their text begins
    fence, shift, before = "", 0, ""
    for line in lines:
        indent = len(line) - len(line.lstrip())
        if fence:
            yield _shifted(line, shift), True
            fence = "" if line.strip() == fence else fence
            continue
        if line.strip():
            while within and indent < within[-1]:
                within.pop()
            shift = 4 * len(within) - (within[-1] if within else 0)
        item = _ITEM.match(line)
        if item and not within and before.strip() and not _ITEM.match(before) and not before.startswith(" "):
            yield "", False
        if item:
            within.append(len(item[0]))
        opening = _FENCE.match(line)
        fence = opening["mark"] if opening else ""
        yield _shifted(line, shift), bool(fence)
        before = line


def _shifted(line: str, shift: int) -> str:
    return (" " * shift + line if shift >= 0 else line[-shift:]) if line.strip() else ""
