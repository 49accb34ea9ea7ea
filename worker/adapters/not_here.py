"""NotHere: adapters that this worker cannot reach at the moment: its mount, its store, its own limits.

Remembered for a while, so that their jobs are left to workers that can: half a minute at first, twice as long each time
that nothing has changed. Says nothing of an adapter's content. Knows no Redis.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import islice

FIRST_S, LONGEST_S = 30.0, 600.0
MAX_NOTES = 1024  # refs remembered: past that the oldest note goes
MAX_SHOWN, MAX_REPORTED = 64, 512  # in a heartbeat, and to the server at each claim


@dataclass(frozen=True, slots=True)
class _Note:
    reason: str
    for_s: float
    until_s: float


class NotHere:
    """One owner on the event loop. ``clock`` in seconds."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._notes: dict[str, _Note] = {}  # oldest first; one that is over tells how long the next lasts

    def note(self, ref: str, reason: str) -> bool:
        """It could not be reached; True if that is news."""
        before = self._notes.get(ref)
        if before is not None and self._clock() < before.until_s:
            return False
        for_s = FIRST_S if before is None else min(LONGEST_S, 2 * before.for_s)
        self._notes.pop(ref, None)
        self._notes[ref] = _Note(reason, for_s, self._clock() + for_s)
        for oldest in tuple(islice(self._notes, max(0, len(self._notes) - MAX_NOTES))):
            del self._notes[oldest]
        return True

    def reached(self, ref: str) -> None:
        """It is here after all."""
        self._notes.pop(ref, None)

    def __contains__(self, ref: str) -> bool:
        note = self._notes.get(ref)
        return note is not None and self._clock() < note.until_s

    def __bool__(self) -> bool:
        return any(ref in self for ref in self._notes)

    def refs(self, limit: int = MAX_SHOWN) -> tuple[str, ...]:
        """The latest of those that are left alone now, sorted; as many as a heartbeat shows, or ``limit``."""
        return tuple(sorted(islice((ref for ref in reversed(self._notes) if ref in self), limit)))

    def without(self, refs: Iterable[str]) -> tuple[str, ...]:
        """Those of ``refs`` that are not left alone, in their order."""
        return tuple(ref for ref in refs if ref not in self)
