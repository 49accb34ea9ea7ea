"""``python deploy/release.py v1.2.3``: print what CHANGELOG.md says of that version, or exit 1 and say what is wrong.

A tag is a release only if pyproject.toml states its version and the changelog has a section for it with something in
it. Needs nothing but Python; the workflow of a release runs it before anything else.
"""

from __future__ import annotations

import re
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[1]


def main() -> None:
    """The notes on stdout."""
    if len(sys.argv) != 2:
        raise SystemExit("usage: python deploy/release.py vX.Y.Z")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    sys.stdout.write(notes(sys.argv[1], project["version"], (ROOT / "CHANGELOG.md").read_text()))


def notes(tag: str, version: str, changelog: str) -> str:
    """The section of that tag's version. Raises SystemExit where tag, version and changelog do not agree."""
    if tag != f"v{version}":
        raise SystemExit(f"tag {tag!r}: expected 'v{version}', the version in pyproject.toml; change one of them")
    section = re.search(rf"(?ms)^## {re.escape(version)}(?: [^\n]*)?\n(.*?)(?=^## |\Z)", changelog)
    if section is None or not section[1].strip():
        raise SystemExit(f"CHANGELOG.md says nothing of {version}: expected '## {version}' with what changed below it")
    return section[1].strip() + "\n"


if __name__ == "__main__":
    main()
