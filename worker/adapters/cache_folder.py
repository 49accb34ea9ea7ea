"""CacheFolder: a folder of content-addressed subfolders, kept within a byte budget: the least recently used go first.

An entry is a subfolder whose name is a sha256, as AdapterFiles makes them. Whoever uses one touches it, and may hold a
shared ``flock`` on it: neither fresh nor locked ones are taken. Looks at nothing else there, and follows no symlink.
"""

from __future__ import annotations

import fcntl
import os
import re
import secrets
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

_DIGEST = re.compile(r"[0-9a-f]{64}")
_LEFTOVER = re.compile(r"\.(trash|partial)-.+")
FRESH_S = 600.0  # since the last touch: it may be on its way into a worker
LEFTOVER_S = 86_400.0  # a download or removal that was cut off


@dataclass(frozen=True)
class Swept:
    """``kept_bytes`` may exceed the budget where what is left is fresh or in use."""

    entries: int
    kept_bytes: int
    removed: int
    removed_bytes: int


@dataclass(frozen=True, slots=True)
class _Entry:
    path: Path
    used_s: float
    size_bytes: int


class CacheFolder:
    """``clock`` gives seconds since 1970."""

    def __init__(
        self, folder: Path, limit_bytes: int, *, fresh_s: float = FRESH_S, clock: Callable[[], float] = time.time
    ) -> None:
        self.folder, self._limit_bytes, self._fresh_s, self._clock = folder, limit_bytes, fresh_s, clock

    def sweep(self) -> Swept:
        """Remove until the rest fits. Several processes may sweep one folder: each entry goes once."""
        if not self.folder.is_dir():
            return Swept(0, 0, 0, 0)
        now_s = self._clock()
        self._clear_leftovers(now_s)
        entries = sorted(self._entries(), key=lambda entry: entry.used_s)
        kept_bytes, removed, removed_bytes = sum(entry.size_bytes for entry in entries), 0, 0
        for entry in entries:
            if kept_bytes <= self._limit_bytes:
                break
            if now_s - entry.used_s >= self._fresh_s and self._remove(entry):
                kept_bytes, removed = kept_bytes - entry.size_bytes, removed + 1
                removed_bytes += entry.size_bytes
        return Swept(len(entries) - removed, kept_bytes, removed, removed_bytes)

    def _entries(self) -> Iterator[_Entry]:
        for path in self.folder.iterdir():
            if _DIGEST.fullmatch(path.name) and path.is_dir() and not path.is_symlink():
                try:
                    yield _Entry(path, path.stat().st_mtime, _size_bytes(path))
                except FileNotFoundError:
                    continue  # another sweep took it

    def _remove(self, entry: _Entry) -> bool:
        """Out of sight at once, then gone; False if it is in use, or was used meanwhile."""
        try:
            with _alone(entry.path) as alone:
                if not alone or entry.path.stat().st_mtime != entry.used_s:
                    return False
                trash = self.folder / f".trash-{secrets.token_hex(8)}"
                entry.path.rename(trash)
        except FileNotFoundError:
            return False
        shutil.rmtree(trash, ignore_errors=True)
        return True

    def _clear_leftovers(self, now_s: float) -> None:
        for path in self.folder.iterdir():
            if _LEFTOVER.fullmatch(path.name) and path.is_dir() and not path.is_symlink():
                try:
                    if now_s - path.stat().st_mtime >= LEFTOVER_S:
                        shutil.rmtree(path, ignore_errors=True)
                except FileNotFoundError:
                    continue


@contextmanager
def _alone(path: Path) -> Iterator[bool]:
    """Whether nobody else holds a lock on that folder; nobody can take one meanwhile."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
        else:
            yield True
    finally:
        os.close(fd)


def _size_bytes(folder: Path) -> int:
    return sum(path.lstat().st_size for path in folder.rglob("*") if not path.is_dir() or path.is_symlink())
