"""CacheFolder: the one owner of a folder of fetched adapters: who fetches into it, who reads it, what goes and when.

An entry is a subfolder whose name is a sha256. It is fetched once, by one of all threads and processes that want it,
and appears whole. Who reads one holds a shared ``flock`` on it, which the kernel drops when its process ends: such an
entry is not evicted, nor is one that was used lately. Beyond a budget the least recently used go first. Workers and
maintenance workers of one machine share a folder without knowing of each other. Looks at nothing else there, and
follows no symlink. Knows neither where an adapter comes from nor what is in it.
"""

from __future__ import annotations

import fcntl
import os
import re
import secrets
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from lorapool.shared.errors import AdapterUnavailable

DIGEST = re.compile(r"[0-9a-f]{64}")
FRESH_S = 600.0  # since the last use: it may be on its way into a worker
LEFTOVER_S = 6 * 3600.0  # a download or removal that was cut off
FETCH_LOCKS = 16  # one in so many adapters waits for another's download
PARTIAL, TRASH = ".partial-", ".trash-"


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
    """``limit_bytes``: what ``sweep`` leaves; None, no entry is evicted. ``clock`` gives seconds since 1970."""

    def __init__(
        self,
        folder: Path,
        limit_bytes: int | None = None,
        *,
        fresh_s: float = FRESH_S,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.folder, self._limit_bytes, self._fresh_s, self._clock = folder, limit_bytes, fresh_s, clock

    # -- entries

    @contextmanager
    def reading(self, digest: str, fetch: Callable[[Path], None]) -> Iterator[Path]:
        """The entry's folder, which stays there while the context lasts; ``fetch`` fills a new one if there is none.

        Raises AdapterUnavailable where the cache cannot be used, and whatever ``fetch`` raises.
        """
        with ExitStack() as holding:
            with self._explained():
                while not self._hold(digest, holding):
                    self._fetch_once(digest, fetch)
            yield self.folder / digest

    def discard(self, digest: str) -> None:
        """Take a damaged entry out of sight, whoever reads it: they fail too, and fetch it again."""
        _remove(self.folder / digest)

    def _hold(self, digest: str, holding: ExitStack) -> bool:
        """Hold the entry as one of its readers, and renew its time stamp; False if there is no such entry."""
        path = self.folder / digest
        try:
            with ExitStack() as attempt:
                lock = attempt.enter_context(_locked(path, fcntl.LOCK_SH))
                if not os.path.samestat(os.fstat(lock), path.lstat()):
                    return False  # removed, and another put in its place, before it was locked
                os.utime(lock)
                holding.push(attempt.pop_all())
        except FileNotFoundError:
            return False
        return True

    def _fetch_once(self, digest: str, fetch: Callable[[Path], None]) -> None:
        """Another thread or process may have fetched it while this one waited for its turn."""
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        with (self.folder / f".lock-{int(digest, 16) % FETCH_LOCKS}").open("ab") as turn:
            fcntl.flock(turn, fcntl.LOCK_EX)
            if (self.folder / digest).exists():
                return
            self._clear_leftovers()
            partial = Path(tempfile.mkdtemp(prefix=PARTIAL, dir=self.folder))
            try:
                with _locked(partial, fcntl.LOCK_SH):
                    fetch(partial)
                    partial.rename(self.folder / digest)
            finally:
                shutil.rmtree(partial, ignore_errors=True)

    @contextmanager
    def _explained(self) -> Iterator[None]:
        """A full disk, or no permission: this worker's trouble, and nothing that an adapter can help."""
        try:
            yield
        except OSError as error:
            raise AdapterUnavailable(f"adapter cache {self.folder}: {error.strerror}; see --adapter-cache") from None

    # -- what goes

    def sweep(self) -> Swept:
        """Evict until the rest fits. Several processes may sweep one folder: each entry goes once."""
        if not self.folder.is_dir():
            return Swept(0, 0, 0, 0)
        self._clear_leftovers()
        now_s = self._clock()
        entries = sorted(self._entries(), key=lambda entry: entry.used_s)
        kept_bytes, removed, removed_bytes = sum(entry.size_bytes for entry in entries), 0, 0
        for entry in entries:
            if self._limit_bytes is None or kept_bytes <= self._limit_bytes:
                break
            if now_s - entry.used_s >= self._fresh_s and _evict(entry):
                kept_bytes, removed = kept_bytes - entry.size_bytes, removed + 1
                removed_bytes += entry.size_bytes
        return Swept(len(entries) - removed, kept_bytes, removed, removed_bytes)

    def _entries(self) -> Iterator[_Entry]:
        for path in self._folders():
            if DIGEST.fullmatch(path.name):
                try:
                    yield _Entry(path, path.stat().st_mtime, _size_bytes(path))
                except FileNotFoundError:
                    continue  # another sweep took it

    def _clear_leftovers(self) -> None:
        """What was cut off long ago, by a kill for instance; a download that still goes on holds its folder."""
        for path in self._folders():
            if path.name.startswith((PARTIAL, TRASH)):
                try:
                    if self._clock() - path.stat().st_mtime >= LEFTOVER_S:
                        with _locked(path, fcntl.LOCK_EX | fcntl.LOCK_NB):
                            shutil.rmtree(path, ignore_errors=True)
                except (FileNotFoundError, BlockingIOError):
                    continue

    def _folders(self) -> Iterator[Path]:
        return (path for path in self.folder.iterdir() if path.is_dir() and not path.is_symlink())


def _evict(entry: _Entry) -> bool:
    """False if it is in use, or was used meanwhile. None can begin to read it while this looks."""
    try:
        with _locked(entry.path, fcntl.LOCK_EX | fcntl.LOCK_NB):
            return entry.path.stat().st_mtime == entry.used_s and _remove(entry.path)
    except (FileNotFoundError, BlockingIOError):
        return False


def _remove(path: Path) -> bool:
    """Out of sight at once, then gone; False if it was not there."""
    trash = path.parent / f"{TRASH}{secrets.token_hex(8)}"
    try:
        path.rename(trash)
    except FileNotFoundError:
        return False
    shutil.rmtree(trash, ignore_errors=True)
    return True


@contextmanager
def _locked(path: Path, how: int) -> Iterator[int]:
    """A folder, locked as ``how`` says. Raises BlockingIOError where another has it and ``how`` says not to wait."""
    lock = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        fcntl.flock(lock, how)
        yield lock
    finally:
        os.close(lock)


def _size_bytes(folder: Path) -> int:
    return sum(path.lstat().st_size for path in folder.rglob("*") if not path.is_dir() or path.is_symlink())
