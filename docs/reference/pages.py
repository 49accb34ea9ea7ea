"""Which pages there are, and the lines that all of them begin with."""

from __future__ import annotations

from pathlib import Path

from docs.reference import counters, errors, flags, keys, modules

HERE = Path(__file__).parent
NOTE = "<!-- Made from the code by `make reference`: change the code, not this page. -->"


def pages() -> dict[str, str]:
    """Each page's text by its file name."""
    made = {"flags": flags, "counters": counters, "keys": keys, "errors": errors, "modules": modules}
    return {f"{name}.md": f"{NOTE}\n\n{module.page().rstrip()}\n" for name, module in made.items()}
