"""What a person sees: lines, tables and errors; and the JSON that a program sees instead.

Tables fit the terminal, and when piped are plain columns that nothing cuts. Text from models, adapters and errors is
shown without its control characters. Knows no Redis and no commands.
"""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import IO, Any, Self

from rich import box
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
from rich.table import Table
from rich.text import Text

PIPED_WIDTH = 400
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")
_GOOD, _BAD, _BUSY = "green", "red", "yellow"
STATE_STYLES = {
    "succeeded": _GOOD,
    "ready": _GOOD,
    "failed": _BAD,
    "refused": _BAD,
    "expired": _BAD,
    "running": _BUSY,
    "pending": _BUSY,
}


def clean(text: object) -> str:
    """Without control characters: a model's text must not drive the terminal."""
    return _CONTROL.sub("\N{REPLACEMENT CHARACTER}", str(text).replace("\r\n", "\n"))


def console(file: IO[str]) -> Console:
    """A console as wide as the terminal, or wide enough for anything when piped."""
    width = None if file.isatty() or "COLUMNS" in os.environ else PIPED_WIDTH
    return Console(file=file, width=width, highlight=False, markup=False, soft_wrap=False)


def say(text: str = "", *, style: str = "", end: str = "\n") -> None:
    """A line on stdout, wrapped by nobody."""
    console(sys.stdout).print(Text(clean(text), style=style), end=end, soft_wrap=True)


def note(text: str, *, style: str = "dim") -> None:
    """A line on stderr: about the answer, not the answer."""
    console(sys.stderr).print(Text(clean(text), style=style), soft_wrap=True)


def document(value: object) -> None:
    """One JSON value on stdout, indented on a terminal, one line otherwise."""
    sys.stdout.write(json.dumps(value, ensure_ascii=False, indent=2 if sys.stdout.isatty() else None) + "\n")
    sys.stdout.flush()


def failure(kind: str, message: str, *, as_json: bool, facts: Mapping[str, object] | None = None) -> None:
    """An error as one red line on stderr, or as one JSON line there."""
    if as_json:
        error = {**(facts or {}), "type": kind, "message": message}
        sys.stderr.write(json.dumps({"error": error}, ensure_ascii=False) + "\n")
    else:
        note(f"error: {' '.join(message.split())}", style="bold red")


def table(columns: Sequence[str], rows: Iterable[Sequence[object]], *, right: Sequence[str] = ()) -> None:
    """Aligned columns on stdout; ``right`` names the numeric ones."""
    out = console(sys.stdout)
    grid = Table(box=box.SIMPLE_HEAD if out.is_terminal else None, pad_edge=False, padding=(0, 2, 0, 0))
    for name in columns:
        numeric = name in right
        grid.add_column(name.upper(), justify="right" if numeric else "left", no_wrap=numeric, overflow="fold")
    for row in rows:
        grid.add_row(*(_cell(value) for value in row))
    _show(out, grid)


def fields(pairs: Mapping[str, object]) -> None:
    """Names and values, one a line; what is empty is left out."""
    out = console(sys.stdout)
    grid = Table.grid(padding=(0, 2, 0, 0))
    grid.add_column(style="dim" if out.is_terminal else "", no_wrap=True)
    grid.add_column(overflow="fold")
    for name, value in pairs.items():
        if value not in (None, "", (), [], {}):
            grid.add_row(name, _cell(value))
    _show(out, grid)


def seconds(milliseconds: float | None) -> str:
    """``850 ms``, ``2.4 s``, ``3 min``, ``5 h``, ``2 d``; a dash for what is not known."""
    if milliseconds is None:
        return "-"
    if milliseconds < 1000:
        return f"{milliseconds:.0f} ms"
    for unit, size in (("d", 86_400_000), ("h", 3_600_000), ("min", 60_000)):
        if milliseconds >= 2 * size:
            return f"{milliseconds / size:.0f} {unit}"
    return f"{milliseconds / 1000:.1f} s"


def count(value: float) -> str:
    """``12,345`` or ``0.5``."""
    return f"{value:,.0f}" if float(value).is_integer() else f"{value:,.1f}"


def _show(out: Console, grid: Table) -> None:
    with out.capture() as capture:
        out.print(grid)
    lines = capture.get().splitlines()
    out.file.write("".join((line if out.is_terminal else line.rstrip()) + "\n" for line in lines))


def _cell(value: object) -> Text:
    if isinstance(value, (list, tuple)):
        value = ", ".join(map(str, value))
    text = clean("-" if value is None or value == "" else value)
    return Text(text, style=STATE_STYLES.get(text, ""))


def plain(model: Any) -> Any:
    """A pydantic model as JSON-ready data."""
    return model.model_dump(mode="json")


class Bar:
    """A progress bar on stderr, on a terminal only: how many are through, and which was the last."""

    def __init__(self, what: str) -> None:
        out = console(sys.stderr)
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[at]}"),
        )
        self._bar = Progress(*columns, console=out, transient=True, disable=not out.is_terminal)
        self._task = self._bar.add_task(what, total=None, at="")

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def total(self, count: int) -> None:
        """So many there are."""
        self._bar.update(self._task, total=count)

    def step(self, last: str = "", count: int = 1) -> None:
        """So many more are through."""
        self._bar.update(self._task, advance=count, at=clean(last))
