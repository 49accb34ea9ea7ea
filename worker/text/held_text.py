"""HeldText: text that may be shown, and its end that may yet turn out to be the beginning of a stop string.

Pure: knows characters, neither tokens nor how they became text.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True)
class HeldText:
    """Text that is kept back while it may be the beginning of a stop string."""

    stop: tuple[str, ...]
    visible: str = ""
    pending: str = ""
    stopped: bool = False

    def push(self, text: str) -> str:
        """Take new text, return what may be shown of all that is pending. After a stop string: nothing more."""
        if self.stopped or not text:
            return ""
        if not self.stop:
            self.visible += text
            return text
        self.pending += text
        cut = self._first_stop()
        self.stopped = cut is not None
        return self._show(cut if cut is not None else len(self.pending) - self._held())

    def flush(self) -> str:
        """Return the rest: no stop string came of it."""
        return "" if self.stopped else self._show(len(self.pending))

    def _show(self, size: int) -> str:
        shown, self.pending = self.pending[:size], self.pending[size:]
        self.visible += shown
        return shown

    def _first_stop(self) -> int | None:
        places = [at for word in self.stop if (at := self.pending.find(word)) >= 0]
        return min(places, default=None)

    def _held(self) -> int:
        """Length of the longest end of ``pending`` that begins some stop string."""
        longest = max((len(word) for word in self.stop), default=1) - 1
        for size in range(min(longest, len(self.pending)), 0, -1):
            tail = self.pending[-size:]
            if any(word.startswith(tail) for word in self.stop):
                return size
        return 0
