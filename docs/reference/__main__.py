"""``python -m docs.reference``: write every page that differs from what the code says, and name it."""

from __future__ import annotations

import sys

from docs.reference.pages import HERE, pages


def main() -> None:
    for name, text in pages().items():
        path = HERE / name
        if not path.exists() or path.read_text() != text:
            path.write_text(text)
            sys.stdout.write(f"written: docs/reference/{name}\n")


if __name__ == "__main__":
    main()
