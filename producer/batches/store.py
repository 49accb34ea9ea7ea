"""FileStore: where the content of files lies: a folder of this machine, or a place on an object store.

Names are made by the pool (``STORE_NAME``), never by callers. Blocking: callers go through threads. Knows no records.
"""

from __future__ import annotations

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
