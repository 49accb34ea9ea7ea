"""What the demo shows: phases with the seconds gone, answers, tables, and a hash as redis-cli prints it.

Looks the same on a terminal of 80 to 120 columns and in a pipe. Knows results and numbers, no client and no process.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence

from rich.columns import Columns
from rich.console import Console, RenderableType
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from lorapool.shared.job import Result

COLOURS = {"ceo": "cyan", "cfo": "green", "coo": "yellow", "cmo": "magenta", "cto": "blue"}
WIDEST = 110


class Screen:
    """The terminal, or the pipe, of one run."""

    def __init__(self, began_s: float | None = None) -> None:
        console = Console(highlight=False)
        self.console = Console(highlight=False, width=min(console.width, WIDEST))
        self._began_s = time.monotonic() if began_s is None else began_s
        self._mid_line = False

    def say(self, text: str) -> None:
        """One line of progress, after the seconds since the start."""
        line = Text.assemble((f"{time.monotonic() - self._began_s:6.1f} s  ", "dim"), text)
        self.show(line, wrap=False)

    def show(self, content: RenderableType, *, wrap: bool = True) -> None:
        """Anything, from the beginning of a line."""
        if self._mid_line:
            self.console.print()
        self._mid_line = False
        self.console.print(content, soft_wrap=not wrap)

    def stream(self, text: str, style: str) -> None:
        """A piece of text as it comes, without a line's end."""
        self.console.out(text, style=style, end="", highlight=False)
        self._mid_line = True

    def answer(self, role: str, result: Result) -> None:
        """One answer, with the proof of what produced it and where its time went."""
        colour = COLOURS.get(role, "white")
        title = Text.assemble((role.upper(), f"bold {colour}"), f"  {provenance(result)}")
        panel = Panel(Text(result.text.strip()), title=title, title_align="left", border_style=colour)
        panel.subtitle, panel.subtitle_align = Text(times(result)), "right"
        self.show(panel)

    def failure(self, role: str, error: Exception) -> None:
        """What stands in an answer's place: the error's own name and words."""
        self.show(
            Panel(Text(str(error)), title=f"{role.upper()}  {type(error).__name__}", title_align="left", style="red")
        )

    def redis_cli(self, command: str, reply: Mapping[str, str]) -> None:
        """A command and its reply as redis-cli prints it, in as many columns as there is room for."""
        parts = [part for pair in reply.items() for part in pair]
        digits = len(str(len(parts)))
        lines = [f'{number:>{digits}}) "{part}"' for number, part in enumerate(parts, start=1)]
        body = Columns([Text(line) for line in lines], column_first=True, padding=(0, 3))
        self.show(Text(f"$ {command}", style="bold"))
        self.show(body)


def provenance(result: Result) -> str:
    """The adapter that answered, and the first digits of its sha256."""
    return f"{result.adapter}  sha256 {result.digest[:12]}…" if result.digest else "the base model, no adapter"


def times(result: Result) -> str:
    """Prompt and new tokens; then milliseconds: waiting for a worker, for the adapter, to the first token, in all."""
    timings = result.timings
    return (
        f"{result.usage.prompt_tokens}+{result.usage.completion_tokens} tokens · queued {timings.queued_ms} · "
        f"load {timings.load_ms or 0} · first token {timings.first_token_ms} · total {timings.total_ms} ms"
    )


def counters_table(stats: Mapping[str, Mapping[str, str]], fields: Sequence[str]) -> Table:
    """A column an adapter, a row a counter."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("counter")
    for ref in stats:
        table.add_column(ref, justify="right")
    for name in fields:
        table.add_row(name, *(counters.get(name, "0") for counters in stats.values()))
    return table


def residency(stats: Iterable[Mapping[str, str | float]], workers: Iterable[Mapping[str, str]]) -> dict[str, str]:
    """How often adapters were where they were needed: from their counters, and from the workers' heartbeats."""
    hits, misses = 0, 0
    for counters in stats:
        hits, misses = hits + int(counters.get("slot_hits", 0)), misses + int(counters.get("slot_misses", 0))
    loads = sum(int(worker.get("adapter_loads", 0)) for worker in workers)
    rate = 100 * hits / max(1, hits + misses)
    return {
        "worker hit rate": f"{rate:.0f} % ({hits} of {hits + misses} jobs found their adapter on the device)",
        "adapter loads": f"{loads} (an adapter's waiting jobs are taken together)",
    }


def facts_table(facts: Mapping[str, str]) -> Table:
    """Two columns: what, and how much."""
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column(style="dim")
    table.add_column()
    for name, value in facts.items():
        table.add_row(name, value)
    return table
