"""AdapterFiles: the local folder of an adapter, wherever its uri points.

A local uri is confined to the allowed roots. A remote one must lie below an allowed place, and is fetched into a folder
named by its digest: only config and weights, once for all who ask (threads and processes), checked before it appears
under its name. Whoever prunes the cache may remove any such folder at any time; its time stamp is that of its last use.
"""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import structlog

from lorapool.shared.digest import (
    CONFIG_NAME,
    MAX_CONFIG_BYTES,
    WEIGHTS_NAME,
    adapter_digest,
    check_size,
)
from lorapool.shared.errors import AdapterUnavailable, CheckpointError, InvalidRequest
from lorapool.shared.prompt_format import MAX_TEMPLATE_BYTES, TEMPLATE_NAME
from lorapool.shared.remote import RemoteFolder, check_uri, is_remote, is_under
from lorapool.worker.engine.adapter_source import AdapterSource, confined

LOCKS = 16  # one in so many adapters waits for another's download
PARTIAL = ".partial-"
ABANDONED_S = 6 * 3600.0
_DIGEST = re.compile(r"[0-9a-f]{64}")
log = structlog.get_logger()


class AdapterFiles:
    """``places``: uris below which remote adapters may lie. ``limit_bytes``: no file is larger that could be served."""

    def __init__(self, roots: tuple[Path, ...], places: tuple[str, ...], cache: Path, limit_bytes: int) -> None:
        self._roots, self._places, self._cache, self._limit_bytes = roots, places, cache, limit_bytes

    def folder(self, source: AdapterSource) -> Path:
        """Its folder, fetched if need be. Raises CheckpointError, and AdapterUnavailable for what is true here only."""
        if not is_remote(source.uri):
            return confined(source.uri, self._roots)
        uri = self._allowed(source.uri)
        if not _DIGEST.fullmatch(source.digest):
            raise CheckpointError(f"{source.ref}: digest {source.digest!r:.80} is no sha256")
        target = self._cache / source.digest
        if not _touched(target):
            with self._alone(source.digest):
                if not _touched(target):
                    self._fetch(uri, source.digest, target)
        return target

    def repaired(self, source: AdapterSource) -> bool:
        """After a failed read: whether the cached copy was at fault, so that reading again may help."""
        target = self._cache / source.digest
        if not is_remote(source.uri):
            return False
        try:
            sound = adapter_digest(target) == source.digest
        except (CheckpointError, AdapterUnavailable):
            sound = False
        if not sound:
            log.warning("adapter's cached copy is damaged or gone", adapter=source.ref, folder=str(target))
            _drop(target)
        return not sound

    def remote_template(self, uri: str) -> str | None:
        """The text of the chat template beside a remote adapter, which is not cached with it: empty if there is none.
        None for a local one, whose folder has it."""
        if not is_remote(uri):
            return None
        remote = RemoteFolder(self._allowed(uri))
        if not remote.has(TEMPLATE_NAME):
            return ""
        return remote.read(TEMPLATE_NAME, MAX_TEMPLATE_BYTES).decode(errors="replace")

    def _allowed(self, uri: str) -> str:
        try:
            checked = check_uri(uri)
        except InvalidRequest as error:
            raise CheckpointError(str(error)) from None
        if not is_under(checked, self._places):
            allowed = f" ({', '.join(self._places)})" if self._places else ""
            raise AdapterUnavailable(
                f"{uri}: outside the places that this worker may read{allowed}; see --adapter-source"
            )
        return checked

    def _fetch(self, uri: str, digest: str, target: Path) -> None:
        began = time.monotonic()
        remote = RemoteFolder(uri)
        check_size(f"{uri}/{WEIGHTS_NAME}", remote.size(WEIGHTS_NAME), self._limit_bytes)
        partial = self._partial()
        try:
            remote.download(CONFIG_NAME, partial / CONFIG_NAME, MAX_CONFIG_BYTES)
            remote.download(WEIGHTS_NAME, partial / WEIGHTS_NAME, self._limit_bytes)
            found = adapter_digest(partial)
            if found != digest:
                raise CheckpointError(f"{uri}: content digest is {found}, registered as {digest}: the files differ")
            partial.rename(target)
        except OSError as error:
            raise AdapterUnavailable(f"{uri}: cannot be kept in {self._cache} ({error.strerror})") from None
        finally:
            _drop(partial)
        log.info("adapter fetched", uri=uri, digest=digest, seconds=round(time.monotonic() - began, 3))

    def _partial(self) -> Path:
        """A new folder to download into."""
        try:
            return Path(tempfile.mkdtemp(prefix=PARTIAL, dir=self._cache))
        except OSError as error:
            raise self._trouble(error) from None

    def _trouble(self, error: OSError) -> AdapterUnavailable:
        return AdapterUnavailable(f"adapter cache {self._cache}: {error.strerror}; see --adapter-cache")

    @contextmanager
    def _alone(self, digest: str) -> Iterator[None]:
        """One download of an adapter at a time, among all threads and processes on this cache."""
        try:
            self._cache.mkdir(mode=0o700, parents=True, exist_ok=True)
            lock = (self._cache / f".lock-{int(digest, 16) % LOCKS}").open("ab")
        except OSError as error:
            raise self._trouble(error) from None
        with lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            _sweep(self._cache)
            yield


def _touched(target: Path) -> bool:
    try:
        os.utime(target)
    except OSError:
        return False
    return True


def _sweep(cache: Path) -> None:
    """Remove what downloads left that were killed long ago."""
    for partial in cache.glob(f"{PARTIAL}*"):
        if time.time() - partial.stat().st_mtime > ABANDONED_S:
            _drop(partial)


def _drop(folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
