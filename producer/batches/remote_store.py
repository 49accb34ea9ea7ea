"""RemoteStore: contents on an object store, through fsspec, with the environment's credentials.

For gateways on several machines, which must see the same files. Uris as in shared/remote.py: few schemes, plain paths.
"""

from __future__ import annotations

import re
from contextlib import suppress
from functools import partial
from typing import IO

from lorapool.producer.batches.content import BLOCK_BYTES, Reading, Writing, told
from lorapool.shared.batches.file_record import STORE_NAME
from lorapool.shared.errors import FilesUnavailable
from lorapool.shared.remote import check_uri, opened

WRITE_BYTES = 8 << 20  # that a store gets at a time; S3 takes no less than 5 MiB
_NAME = re.compile(STORE_NAME)


class RemoteStore:
    """Makes no bucket: a slip in a name is an error. Raises InvalidRequest for a uri that is none."""

    def __init__(self, uri: str) -> None:
        self._uri = check_uri(uri)
        self._fs, self._path = opened(self._uri, FilesUnavailable)

    @property
    def where(self) -> str:
        return self._uri

    def writing(self, name: str) -> Writing:
        path = self._below(name)
        with told(self._uri):
            file: IO[bytes] = self._fs.open(path, "wb", block_size=WRITE_BYTES)
        return Writing(self._uri, file, lambda: None, partial(self.remove, name))

    def reading(self, name: str, offset: int = 0) -> Reading:
        path = self._below(name)
        with told(f"{self._uri}/{name}"):
            file: IO[bytes] = self._fs.open(path, "rb", block_size=4 * BLOCK_BYTES)
            file.seek(offset)
        return Reading(self._uri, file)

    def remove(self, name: str) -> None:
        with told(f"{self._uri}/{name}"), suppress(FileNotFoundError):
            self._fs.rm_file(self._below(name))

    def names(self, folder: str) -> list[str]:
        with told(self._uri):
            self._fs.invalidate_cache()
            with suppress(FileNotFoundError):
                found = self._fs.ls(self._below(folder), detail=False)
                return sorted(f"{folder}/{path.rstrip('/').rpartition('/')[2]}" for path in found)
            return []

    def _below(self, name: str) -> str:
        assert _NAME.fullmatch(name), name
        return f"{self._path}/{name}"
