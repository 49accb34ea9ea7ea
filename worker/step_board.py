"""StepBoard: a page of memory on which the engine's process says what it is busy with, so that its end can be judged.

It is written before and after each step, costs no system call, and can be read when the writer is dead or hangs: since
when no boundary between steps was passed, and which sequences are in the step. They stand there as checksums of their
ids: two that collide share a blame, no more.
"""

from __future__ import annotations

import mmap
import os
import struct
import time
from array import array
from collections.abc import Iterable
from zlib import crc32

MOST_ROWS = 8192
_HEAD = struct.Struct("<QI")  # nanoseconds of the monotonic clock, which processes share; rows in the step
_SIZE = _HEAD.size + 4 * MOST_ROWS


class StepBoard:
    """One writer, one reader, over a file descriptor that both have (``make``)."""

    def __init__(self, fd: int) -> None:
        self._page = mmap.mmap(fd, _SIZE)

    @classmethod
    def make(cls) -> int:
        """A descriptor for a new, empty board."""
        fd = os.memfd_create("lorapool-steps")
        os.ftruncate(fd, _SIZE)
        return fd

    def passed(self) -> None:
        """A boundary was passed."""
        _HEAD.pack_into(self._page, 0, time.monotonic_ns(), 0)

    def enter(self, seq_ids: Iterable[str]) -> None:
        """These are computed from now on."""
        sums = array("I", [crc32(seq_id.encode()) for seq_id in seq_ids][:MOST_ROWS])
        self._page[_HEAD.size : _HEAD.size + 4 * len(sums)] = sums.tobytes()
        _HEAD.pack_into(self._page, 0, time.monotonic_ns(), len(sums))

    def passed_ns(self) -> int:
        """When the last boundary was passed; 0 before the first."""
        return int(_HEAD.unpack_from(self._page)[0])

    def age_s(self) -> float:
        """Since when none was passed; 0 before the first."""
        at_ns = self.passed_ns()
        return max(0.0, (time.monotonic_ns() - at_ns) / 1e9) if at_ns else 0.0

    def among(self, seq_ids: Iterable[str]) -> frozenset[str]:
        """Those that are in the step."""
        count = _HEAD.unpack_from(self._page)[1]
        sums = array("I")
        sums.frombytes(self._page[_HEAD.size : _HEAD.size + 4 * count])
        inside = set(sums)
        return frozenset(seq_id for seq_id in seq_ids if crc32(seq_id.encode()) in inside)

    def close(self) -> None:
        """Give the page back."""
        self._page.close()
