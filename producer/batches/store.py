"""FileStore: where the content of files lies: a folder of this machine, or a place on an object store.

Names are made by the pool (``STORE_NAME``), never by callers. Blocking: callers go through threads, as ``opened`` does.
Knows no records.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Protocol

from lorapool.producer.batches.content import Reading, Writing
from lorapool.producer.batches.folder_store import FolderStore
from lorapool.producer.batches.remote_store import RemoteStore
from lorapool.shared.errors import InvalidRequest
from lorapool.shared.remote import SCHEMES, is_remote


class FileStore(Protocol):
    """One location. All methods raise FilesUnavailable for whatever a disk or a store says."""

    @property
    def where(self) -> str:
        """The location's name for people."""
        ...

    def writing(self, name: str) -> Writing:
        """A new content; what was there under that name is replaced."""
        ...

    def reading(self, name: str, offset: int = 0) -> Reading: ...

    def remove(self, name: str) -> None:
        """Harmless where there is none."""
        ...

    def names(self, folder: str) -> list[str]:
        """All contents in a folder."""
        ...


def store_at(location: str) -> FileStore:
    """The store at a folder (made if it is not there, for its owner alone) or a uri such as ``s3://bucket/batches``.

    Raises InvalidRequest, FilesUnavailable.
    """
    if is_remote(location):
        return RemoteStore(location)
    if "://" in location and not location.startswith("file://"):
        raise InvalidRequest(
            f"files = {location!r:.200}: expected a folder, or a uri of {', '.join(f'{s}://' for s in sorted(SCHEMES))}"
        )
    return FolderStore(Path(location.removeprefix("file://")).expanduser())


@asynccontextmanager
async def opened(store: FileStore, name: str) -> AsyncIterator[Reading]:
    """A content, to be read in threads. Its reader may be cancelled at any moment, while it is being opened too: it is
    closed all the same."""
    opening = asyncio.ensure_future(asyncio.to_thread(store.reading, name))
    try:
        reading = await asyncio.shield(opening)
    except asyncio.CancelledError:
        opening.add_done_callback(_close_if_opened)
        raise
    try:
        yield reading
    finally:
        _close(reading)


def _close_if_opened(opening: asyncio.Future[Reading]) -> None:
    if not opening.cancelled() and opening.exception() is None:
        _close(opening.result())


def _close(reading: Reading) -> None:
    """In a thread, which nobody waits for: whoever is cancelled cannot, and closing what was read loses nothing."""
    closing = asyncio.get_running_loop().run_in_executor(None, reading.close)
    closing.add_done_callback(lambda done: done.cancelled() or done.exception())
