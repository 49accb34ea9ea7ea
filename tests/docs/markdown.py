"""What a reader of a Markdown page can follow: its links, and the anchors of its headings, as GitHub makes them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

CODE = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)
HEADING = re.compile(r"^#{1,6} (.+)$", re.MULTILINE)
INLINE_CODE = re.compile(r"`[^`]*`")
LINK = re.compile(r"\]\(([^()\s]+)\)")
ELSEWHERE = re.compile(r"^[a-z]+:")


def links(path: Path) -> list[str]:
    """The targets of all links and pictures that lead to no other site."""
    text = INLINE_CODE.sub("", CODE.sub("", path.read_text()))
    return [target for target in LINK.findall(text) if not ELSEWHERE.match(target)]


def anchors(path: Path) -> set[str]:
    """The names of all headings, a number after those that come again."""
    return set(_anchors(CODE.sub("", path.read_text())))


def _anchors(text: str) -> Iterator[str]:
    seen: dict[str, int] = {}
    for heading in HEADING.findall(text):
        slug = re.sub(r"[^\w\- ]", "", re.sub(r"\]\([^)]*\)", "", heading).lower()).replace(" ", "-")
        again = seen.get(slug, 0)
        seen[slug] = again + 1
        yield f"{slug}-{again}" if again else slug


def broken(path: Path) -> list[str]:
    """Links of a page that lead to no file, or to no heading of it."""
    return [link for link in links(path) if not _leads_somewhere(path, link)]


def _leads_somewhere(page: Path, link: str) -> bool:
    file, _, anchor = link.partition("#")
    target = page.parent / file if file else page
    return target.exists() and (not anchor or anchor in anchors(target))
