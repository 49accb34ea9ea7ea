"""Writing and Reading: one content on its way into a store, or out of it; blocking, for threads.

Knows size and digest of what went by. Whatever a disk or a store's library raises is FilesUnavailable.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from hashlib import sha256
from typing import IO

from lorapool.shared.errors import FilesUnavailable
from lorapool.shared.redaction import redact

BLOCK_BYTES = 1 << 20


class Writing:
    """What is written is there, whole, once ``close`` has returned."""

    def __init__(self, where: str, file: IO[bytes], sync: Callable[[], None], remove: Callable[[], None]) -> None:
        """``sync`` is called before the file is closed, ``remove`` after it was given up."""
        self._where, self._file, self._sync, self._remove = where, file, sync, remove
        self._digest = sha256()
        self.size = 0

    def write(self, data: bytes) -> None:
        with told(self._where):
            self._file.write(data)
        self._digest.update(data)
        self.size += len(data)

    def close(self) -> None:
        with told(self._where):
            self._sync()
            self._file.close()

    def abort(self) -> None:
        """Leave nothing there."""
        with suppress(Exception):  # closing writes what is left, and may say again why it cannot
            self._file.close()
        with suppress(FilesUnavailable):
            self._remove()

    @property
    def sha256(self) -> str:
        return self._digest.hexdigest()


class Reading:
    """From an offset on."""

    def __init__(self, where: str, file: IO[bytes]) -> None:
        self._where, self._file = where, file

    def read(self) -> bytes:
        """The next piece; empty at the end."""
        with told(self._where):
            return self._file.read(BLOCK_BYTES)

    def close(self) -> None:
        with told(self._where):
            self._file.close()


@contextmanager
def told(where: str) -> Iterator[None]:
    """Raises FilesUnavailable, which names the place and the reason."""
    try:
        yield
    except FilesUnavailable:
        raise
    except Exception as error:  # each store's library has errors of its own
        raise FilesUnavailable(f"{where}: {words(error)}") from error


def words(error: Exception) -> str:
    """What a disk or a store says, without passwords and not at length."""
    said = getattr(error, "strerror", None) or str(error)
    return f"{type(error).__name__}: {redact(str(said))[:300] or 'no reason given'}"
