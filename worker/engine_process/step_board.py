"""StepBoard: a page of memory on which the engine's process says what it is busy with, so that its end can be judged.

It is written before and after each step, costs no system call, and can be read when the writer is dead or hangs: since
when no boundary between steps was passed, which sequences are in the step, and which adapter is just being read or put
into a slot. Ids stand there as checksums: two that collide share a blame, no more.
"""

from __future__ import annotations

import mmap
import os
import struct
import time
from array import array
from collections.abc import Iterable, Mapping
from typing import Literal
from zlib import crc32

MOST_ROWS = 8192  # of a larger step it says only that anyone may be in it
_STEP = struct.Struct("<QI")  # nanoseconds of the monotonic clock, which processes share; rows in the step
_ADAPTER = struct.Struct("<I")  # its checksum, 0 for none
_AT = {"read": _STEP.size, "placed": _STEP.size + _ADAPTER.size}
_HEAD_SIZE = _STEP.size + _ADAPTER.size * len(_AT)
_SIZE = _HEAD_SIZE + 4 * MOST_ROWS


class StepBoard:
    """One reader, one writer, over a file descriptor that both have (``make``). The writer has one thread that steps
    and places adapters, and may have one that reads them."""

    def __init__(self, fd: int) -> None:
        self._page = mmap.mmap(fd, _SIZE)

    @classmethod
    def make(cls) -> int:
        """A descriptor for a new, empty board."""
        fd = os.memfd_create("lorapool-steps")
        os.ftruncate(fd, _SIZE)
        return fd

    # what the writer does

    def passed(self) -> None:
        """A boundary was passed."""
        _STEP.pack_into(self._page, 0, time.monotonic_ns(), 0)

    def enter(self, seq_ids: Iterable[str]) -> None:
        """These are computed from now on."""
        sums = array("I", [_sum(seq_id) for seq_id in seq_ids])
        if len(sums) <= MOST_ROWS:
            self._page[_HEAD_SIZE : _HEAD_SIZE + 4 * len(sums)] = sums.tobytes()
        _STEP.pack_into(self._page, 0, time.monotonic_ns(), len(sums))

    def bring(self, stage: Literal["read", "placed"], ref: str | None) -> None:
        """This adapter is brought so far from now on; None: it is done."""
        _ADAPTER.pack_into(self._page, _AT[stage], 0 if ref is None else _sum(ref))

    # what the reader sees

    def passed_ns(self) -> int:
        """When the last boundary was passed; 0 before the first."""
        return int(_STEP.unpack_from(self._page)[0])

    def age_s(self) -> float:
        """Since when none was passed; 0 before the first."""
        at_ns = self.passed_ns()
        return max(0.0, (time.monotonic_ns() - at_ns) / 1e9) if at_ns else 0.0

    def is_busy(self) -> bool:
        """In a step, or bringing an adapter."""
        return self._rows() > 0 or bool(self._adapters())

    def busy_with(self, refs: Mapping[str, str]) -> frozenset[str]:
        """Of these sequences, each with its adapter's ref: those in the step, and those whose adapter is on its way."""
        rows, adapters = self._rows(), self._adapters()
        if rows > MOST_ROWS:
            return frozenset(refs)
        sums = array("I")
        sums.frombytes(self._page[_HEAD_SIZE : _HEAD_SIZE + 4 * rows])
        inside = set(sums)
        return frozenset(seq_id for seq_id, ref in refs.items() if _sum(seq_id) in inside or _sum(ref) in adapters)

    def close(self) -> None:
        """Give the page back."""
        self._page.close()

    def _rows(self) -> int:
        return int(_STEP.unpack_from(self._page)[1])

    def _adapters(self) -> set[int]:
        return {int(_ADAPTER.unpack_from(self._page, at)[0]) for at in _AT.values()} - {0}


def _sum(name: str) -> int:
    return crc32(name.encode(errors="surrogatepass")) or 1
