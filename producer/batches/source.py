"""Source: a batch's file, looked through as a whole, and then read again for what is not answered yet.

Blocking: callers go through threads. Never holds the file in memory.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from hashlib import blake2b
from itertools import islice

from lorapool.producer.batches.content import Reading
from lorapool.producer.batches.line import MAX_LINES, Fault, Line, lines_of, parse
from lorapool.producer.batches.store import FileStore
from lorapool.shared.batches.batch_record import MAX_ERRORS


@dataclass(frozen=True, slots=True)
class Survey:
    """How many requests there are; the first faults, by line: with any, none of them is asked."""

    total: int
    faults: list[Fault]


def survey(store: FileStore, name: str, endpoint: str) -> Survey:
    """Look the whole file through. Raises FilesUnavailable."""
    seen: set[bytes] = set()
    faults: list[Fault] = []
    total = 0
    with closing(store.reading(name)) as reading:
        try:
            for number, text in lines_of(reading):
                total += 1
                faults += _judged(text, number, endpoint, seen)
                if total > MAX_LINES or len(faults) >= MAX_ERRORS:
                    break
        except Fault as too_long:
            faults.append(too_long)
    if total > MAX_LINES:
        faults.append(Fault("too_many_requests", f"more than {MAX_LINES:,} requests, the limit of a file"))
    if not total and not faults:
        faults.append(Fault("empty_file", "there is no request in the file"))
    return Survey(total, faults)


def _judged(text: bytes, number: int, endpoint: str, seen: set[bytes]) -> list[Fault]:
    try:
        custom_id = parse(text, number, endpoint).custom_id
    except Fault as fault:
        fault.line = number
        return [fault]
    digest = blake2b(custom_id.encode("utf-8", "surrogatepass"), digest_size=16).digest()
    if digest in seen:
        why = f"{custom_id!r:.80}: another line has it"
        return [Fault("duplicate_custom_id", why, param="custom_id", line=number)]
    seen.add(digest)
    return []


class Source:
    """The lines whose bit in ``answered`` is not set, in order."""

    def __init__(self, reading: Reading, endpoint: str, answered: bytes) -> None:
        self._reading, self._endpoint, self._answered = reading, endpoint, answered
        self._lines = self._left()

    def take(self, most: int) -> list[Line]:
        """The next ones; none at the end. Raises FilesUnavailable, and Fault where the file is not what it was."""
        return list(islice(self._lines, most))

    def _left(self) -> Iterator[Line]:
        for number, (_, text) in enumerate(lines_of(self._reading)):
            if not _is_set(self._answered, number):
                yield parse(text, number, self._endpoint)


def _is_set(bits: bytes, number: int) -> bool:
    return number >> 3 < len(bits) and bool(bits[number >> 3] & (0x80 >> (number & 7)))
