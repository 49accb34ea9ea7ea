"""Remote: adapter folders on object stores and model hubs, through fsspec (``pip install 'lorapool[remote]'``).

A uri comes from outside and is hostile: few schemes, plain paths, no options, no chained file systems. Credentials are
those of the environment, as each library finds them. Sizes are bounded while bytes come in. Knows no caches and no
adapters' content.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from lorapool.shared.errors import AdapterUnavailable, CheckpointError, InvalidRequest, LorapoolError
from lorapool.shared.redaction import redact

# scheme -> what to install for it
SCHEMES = {
    "hf": "lorapool[hf]",
    "s3": "lorapool[s3]",
    "gs": "lorapool[gs]",
    "az": "lorapool[az]",
    "abfs": "lorapool[az]",
    "abfss": "lorapool[az]",
}
_URI = re.compile(r"(?P<scheme>[a-z][a-z0-9]*)://(?P<path>[\w.@=+~-]+(?:/[\w.@=+~-]+)*)/?", re.ASCII)
_CHUNK_BYTES = 1 << 20


def is_remote(uri: str) -> bool:
    """Whether ``uri`` names a place that is read through fsspec."""
    return uri.partition("://")[0] in SCHEMES


def check_uri(uri: str) -> str:
    """The uri without a slash at its end. Raises InvalidRequest for a scheme, a path or a form that is not read."""
    match = _URI.fullmatch(uri)
    if match is None or ".." in uri.split("/") or "." in uri.split("/"):
        raise InvalidRequest(f"{uri!r:.200}: expected scheme://place/path of letters, digits and . _ @ = + ~ -")
    if match["scheme"] not in SCHEMES:
        raise InvalidRequest(f"{uri}: scheme {match['scheme']!r} is not read; known are {', '.join(sorted(SCHEMES))}")
    return uri.rstrip("/")


def check_place(place: str) -> str:
    """As ``check_uri``, for what uris may lie below: also a bare scheme such as ``hf://``. Raises InvalidRequest."""
    scheme = place.removesuffix("://")
    return place if scheme != place and scheme in SCHEMES else check_uri(place)


def is_under(uri: str, places: tuple[str, ...]) -> bool:
    """Whether ``uri`` is one of ``places`` or lies below one; a place may be a bare scheme such as ``hf://``."""
    return any(uri == place or uri.startswith(place if place.endswith("://") else f"{place}/") for place in places)


class RemoteFolder:
    """One folder. What it lacks is a CheckpointError that names uri and file; that it cannot be reached from here and
    now an AdapterUnavailable."""

    def __init__(self, uri: str) -> None:
        self.uri = check_uri(uri)
        self._fs, self._path = opened(self.uri, AdapterUnavailable)

    def has(self, name: str) -> bool:
        with self._told(name):
            return bool(self._fs.isfile(f"{self._path}/{name}"))

    def size(self, name: str) -> int:
        """Bytes of a file, by its store."""
        with self._told(name):
            return int(self._fs.info(f"{self._path}/{name}")["size"])

    def chunks(self, name: str, limit_bytes: int) -> Iterator[bytes]:
        """The bytes of a file. Raises CheckpointError for more than ``limit_bytes``, before and while reading."""
        with self._told(name):
            size = int(self._fs.info(f"{self._path}/{name}")["size"])
            self._bound(name, size, limit_bytes)
            with self._fs.open(f"{self._path}/{name}", "rb", block_size=_CHUNK_BYTES * 4) as source:
                read = 0
                while chunk := source.read(_CHUNK_BYTES):
                    read += len(chunk)
                    self._bound(name, read, limit_bytes)
                    yield chunk

    def read(self, name: str, limit_bytes: int) -> bytes:
        """A whole small file."""
        return b"".join(self.chunks(name, limit_bytes))

    def download(self, name: str, target: Path, limit_bytes: int) -> None:
        """Copy a file to a new local one."""
        with target.open("xb") as file:
            for chunk in self.chunks(name, limit_bytes):
                file.write(chunk)

    def upload(self, source: Path, name: str) -> None:
        """Copy a local file there. Makes no bucket and no repository: a slip in a name is an error."""
        with self._told(name), source.open("rb") as file, self._fs.open(f"{self._path}/{name}", "wb") as target:
            _copy(file, target)

    def _bound(self, name: str, size: int, limit_bytes: int) -> None:
        if size > limit_bytes:
            raise CheckpointError(f"{self.uri}/{name}: {size:,} bytes, the limit is {limit_bytes:,}")

    @contextmanager
    def _told(self, name: str) -> Iterator[None]:
        try:
            yield
        except (CheckpointError, AdapterUnavailable):
            raise
        except FileNotFoundError:
            raise CheckpointError(f"{self.uri}: has no {name}") from None
        except Exception as error:  # each store's library has errors of its own
            raise AdapterUnavailable(f"{self.uri}/{name}: cannot be reached ({_words(error)})") from error


def opened(uri: str, unavailable: type[LorapoolError]) -> tuple[Any, str]:
    """The store of a uri, by fsspec, and the path in it. Raises ``unavailable`` where it cannot be had here."""
    package = SCHEMES[uri.partition("://")[0]]
    try:
        import fsspec

        fs, path = fsspec.core.url_to_fs(uri)
    except ImportError:
        raise unavailable(f"{uri}: needs a library that is not installed: pip install '{package}'") from None
    except Exception as error:  # no credentials, no such account
        raise unavailable(f"{uri}: cannot be opened ({_words(error)})") from error
    return fs, path


def _words(error: Exception) -> str:
    """What the store's library says, without passwords and not at length."""
    return f"{type(error).__name__}: {redact(str(error))[:300] or 'no reason given'}"


def _copy(source: IO[bytes], target: Any) -> None:
    while chunk := source.read(_CHUNK_BYTES):
        target.write(chunk)
