"""Phases: what a long command says while it comes up: a line a phase after the seconds gone, and what goes on now.

On a terminal what goes on now is a line that moves; in a pipe, where nothing can be taken back, it is said now and
then.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.text import Text

from lorapool.producer.commands.render import clean, console

SAY_EVERY_S = 5.0  # in a pipe


class Phases:
    """Of one run, since now."""

    def __init__(self) -> None:
        self._began_s = time.monotonic()
        self._console = console(sys.stdout)

    def say(self, text: str, *, style: str = "") -> None:
        """A phase, done."""
        passed = f"{time.monotonic() - self._began_s:6.1f} s  "
        self._console.print(Text.assemble((passed, "dim"), (clean(text), style)), soft_wrap=True)

    def show(self, text: str) -> None:
        """Lines as they are."""
        self._console.print(Text(clean(text)), soft_wrap=True)

    @contextmanager
    def status(self, text: str) -> Iterator[Callable[[str], None]]:
        """What goes on until left; yields what changes its words."""
        if not self._console.is_terminal:
            yield self._now_and_then(text)
            return
        with self._console.status(Text(clean(text))) as status:
            yield lambda now: status.update(Text(clean(now)))

    def _now_and_then(self, text: str) -> Callable[[str], None]:
        """Says what goes on, and again where it has changed, at most every few seconds."""
        self.say(text)
        said, said_at = text, time.monotonic()

        def show(now: str) -> None:
            nonlocal said, said_at
            if now != said and time.monotonic() - said_at >= SAY_EVERY_S:
                self.say(now)
                said, said_at = now, time.monotonic()

        return show
