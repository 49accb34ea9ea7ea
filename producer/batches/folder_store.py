"""FolderStore: contents in a folder that is its owner's alone; on the disk, name and all, once they are closed."""

from __future__ import annotations

import os
import re
from contextlib import suppress
from functools import partial
from pathlib import Path

from lorapool.producer.batches.content import Reading, Writing, told
from lorapool.shared.batches.file_record import STORE_NAME

_NAME = re.compile(STORE_NAME)


class FolderStore:
    """``path`` is made if it is not there."""

    def __init__(self, path: Path) -> None:
        self._path = path.absolute()
        with told(self.where):
            self._path.mkdir(mode=0o700, parents=True, exist_ok=True)

    @property
    def where(self) -> str:
        return str(self._path)

    def writing(self, name: str) -> Writing:
        path = self._below(name)
        with told(str(path)):
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
            file = os.fdopen(os.open(path, flags, 0o600), "wb")

        def sync() -> None:
            file.flush()
            os.fsync(file.fileno())
            _sync_folder(path.parent)

        return Writing(str(path), file, sync, partial(self.remove, name))

    def reading(self, name: str, offset: int = 0) -> Reading:
        path = self._below(name)
        with told(str(path)):
            file = path.open("rb")
            file.seek(offset)
        return Reading(str(path), file)

    def remove(self, name: str) -> None:
        path = self._below(name)
        with told(str(path)):
            path.unlink(missing_ok=True)
            with suppress(OSError):  # others are in it
                path.parent.rmdir()

    def names(self, folder: str) -> list[str]:
        below = self._below(folder)
        with told(str(below)):
            return sorted(f"{folder}/{path.name}" for path in below.iterdir()) if below.is_dir() else []

    def _below(self, name: str) -> Path:
        assert _NAME.fullmatch(name), name
        return self._path / name


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
