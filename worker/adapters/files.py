"""AdapterFiles: the local folder of an adapter, wherever its uri points.

A local uri is confined to the allowed roots. A remote one must lie below an allowed place, and is fetched into the
cache folder: only config and weights, checked against the digest before they appear there. Knows what may be read and
what is fetched; where the copies lie, and how long, is CacheFolder's.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
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
from lorapool.worker.adapters.cache_folder import DIGEST, CacheFolder
from lorapool.worker.adapters.confined import confined
from lorapool.worker.engine.adapter_source import AdapterSource

log = structlog.get_logger()


class AdapterFiles:
    """``places``: uris below which remote adapters may lie. ``limit_bytes``: no file is larger that could be served."""

    def __init__(self, roots: tuple[Path, ...], places: tuple[str, ...], cache: CacheFolder, limit_bytes: int) -> None:
        self._roots, self._places, self._cache, self._limit_bytes = roots, places, cache, limit_bytes

    @contextmanager
    def reading(self, source: AdapterSource) -> Iterator[Path]:
        """Its folder, fetched if need be; nobody clears a cached copy away while the context lasts.

        Raises CheckpointError, and AdapterUnavailable for what is true here only.
        """
        if not is_remote(source.uri):
            yield confined(source.uri, self._roots)
            return
        uri = self._allowed(source.uri)
        if not DIGEST.fullmatch(source.digest):
            raise CheckpointError(f"{source.ref}: digest {source.digest!r:.80} is no sha256")
        with self._cache.reading(source.digest, partial(self._fetch, uri, source.digest)) as folder:
            yield folder

    def repaired(self, source: AdapterSource) -> bool:
        """After a failed read: whether the cached copy was at fault, so that reading again may help."""
        if not is_remote(source.uri):
            return False
        folder = self._cache.folder / source.digest
        try:
            sound = adapter_digest(folder) == source.digest
        except (CheckpointError, AdapterUnavailable):
            sound = False
        if not sound:
            log.warning("adapter's cached copy is damaged or gone", adapter=source.ref, folder=str(folder))
            self._cache.discard(source.digest)
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

    def _fetch(self, uri: str, digest: str, folder: Path) -> None:
        began_s = time.monotonic()
        remote = RemoteFolder(uri)
        check_size(f"{uri}/{WEIGHTS_NAME}", remote.size(WEIGHTS_NAME), self._limit_bytes)
        remote.download(CONFIG_NAME, folder / CONFIG_NAME, MAX_CONFIG_BYTES)
        remote.download(WEIGHTS_NAME, folder / WEIGHTS_NAME, self._limit_bytes)
        fetched = adapter_digest(folder)
        if fetched != digest:
            raise CheckpointError(f"{uri}: content digest is {fetched}, registered as {digest}: the files differ")
        log.info("adapter fetched", uri=uri, digest=digest, seconds=round(time.monotonic() - began_s, 3))
