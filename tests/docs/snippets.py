"""The blocks of a Markdown page, and how they are run. The conventions are told to readers in docs/README.md.

``sh`` and ``python`` blocks run, in the order of the page, in one scratch folder; exported variables live on from
block to block. A comment right above a block's fence says what is special about it::

    <!-- not run: REASON -->   it cannot run here
    <!-- fails: STATUS -->     it must end with that exit status
    <!-- output -->            above a ``text`` block: what the block before it printed; … stands for anything

Python blocks may await at top level, as in ``python -m asyncio``.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
COMMENT = re.compile(r"<!-- (not run|fails|output)(?:: (.+?))? -->\n\Z")
RUN, SHOWN = ("sh", "python"), ("text",)
BIN = Path(__file__).parent / "bin"  # programs that pages call and that need not be installed here
TIMEOUT_S = 250
DRIVER = """
import ast, asyncio, inspect, sys
name = sys.argv[1]
code = compile(open(name).read(), name, "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
coroutine = eval(code, {"__name__": "__main__"})
if inspect.iscoroutine(coroutine):
    asyncio.run(coroutine)
"""


@dataclass(frozen=True)
class Block:
    """One fenced block. ``output`` is what it is said to print."""

    page: str
    line: int
    language: str
    text: str
    not_run: str | None = None
    fails: int = 0
    output: str | None = None

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"


def blocks(path: Path) -> list[Block]:
    """All blocks of a page that run or are marked as not run, outputs joined to them."""
    found: list[Block] = []
    for block, kind in _fenced(path):
        if kind == "output":
            found[-1] = replace(found[-1], output=block.text)
        elif block.language in RUN:
            found.append(block)
    return found


def languages(path: Path) -> set[str]:
    return {block.language for block, _ in _fenced(path)}


def _fenced(path: Path) -> Iterator[tuple[Block, str]]:
    text = path.read_text()
    for match in FENCE.finditer(text):
        comment = COMMENT.search(text[: match.start()])
        kind, value = comment.groups() if comment else ("", "")
        block = Block(path.name, text.count("\n", 0, match.start()) + 1, match[1], match[2])
        if kind == "not run":
            block = replace(block, not_run=value)
        elif kind == "fails":
            block = replace(block, fails=int(value))
        yield block, kind


@dataclass
class Session:
    """A reader's terminal: a folder, an environment, and the Python on its PATH."""

    folder: Path
    python: Path
    redis_url: str
    said: Mapping[str, str] = field(default_factory=dict)  # what the page writes, and what it stands for here

    def run(self, block: Block) -> str:
        """Run it; what it printed. Raises AssertionError for another exit status."""
        text = block.text
        for said, meant in self.said.items():
            text = text.replace(said, meant)
        command = self._sh(text) if block.language == "sh" else self._python(text)
        done = subprocess.run(
            command, cwd=self.folder, env=self._environment(), stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=TIMEOUT_S,
        )  # fmt: skip
        assert done.returncode == block.fails, f"{block} ended with {done.returncode}:\n{text}\n{done.stdout}"
        return done.stdout

    def _sh(self, text: str) -> list[str]:
        state = self.folder / ".exported"
        state.touch()
        return ["bash", "-euo", "pipefail", "-c", f"source {state}\n{text}\nexport -p > {state}"]

    def _python(self, text: str) -> list[str]:
        (self.folder / "snippet.py").write_text(text)
        return [str(self.python), "-c", DRIVER, "snippet.py"]

    def _environment(self) -> dict[str, str]:
        path = os.pathsep.join([str(self.python.parent), str(BIN), os.environ["PATH"]])
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("LORAPOOL_", "PYTHON"))}
        return {**kept, "PATH": path, "LORAPOOL_REDIS_URL": self.redis_url, "COLUMNS": "110"}


def matches(said: str, printed: str) -> bool:
    """Whether the page's output is what was printed, spaces apart; … stands for anything."""
    parts = [re.escape(" ".join(part.split())) for part in said.split("…")]
    pattern = ".*?".join(part.replace(r"\ ", " ") for part in parts)
    return re.fullmatch(rf"\s*{pattern}\s*", " ".join(printed.split()), re.DOTALL) is not None


def here() -> Path:
    """The Python that runs the tests."""
    return Path(sys.executable)
