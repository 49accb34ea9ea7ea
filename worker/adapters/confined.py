"""Where an adapter's files are, and whether this worker may read them.

A registered uri comes from outside and is hostile: it is resolved through symlinks, and both the folder and the files
in it must lie under a root that the operator allowed. Opens no file. Knows neither formats nor tensors.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import unquote, urlsplit

from lorapool.shared.digest import CONFIG_NAME, WEIGHTS_NAME
from lorapool.shared.errors import AdapterUnavailable, CheckpointError


def confined(uri: str, roots: Sequence[Path]) -> Path:
    """The real folder of a ``file://`` uri or absolute path, if it and its files lie under one of ``roots``.

    Raises CheckpointError: another scheme, a relative path, or a file that is no regular file. Raises
    AdapterUnavailable for what is true of this worker: no such folder, or outside its roots (``..`` and symlinks
    followed).
    """
    if not roots:
        raise AdapterUnavailable(f"{uri}: no folder is allowed; start the worker with --adapter-root FOLDER")
    folder = _under(_local_path(uri), roots, uri)
    if not os.path.isdir(folder):  # noqa: PTH112  Path.is_dir raises where nothing may be seen
        raise AdapterUnavailable(f"{uri}: no such folder on this worker")
    for name in (CONFIG_NAME, WEIGHTS_NAME):
        path = _under(folder / name, roots, f"{uri}/{name}")
        if os.path.exists(path) and not stat.S_ISREG(path.stat().st_mode):  # noqa: PTH110  likewise
            raise CheckpointError(f"{uri}/{name}: not a regular file")
    return folder


def _local_path(uri: str) -> Path:
    try:
        parts = urlsplit(uri) if "://" in uri else None
    except ValueError as error:
        raise CheckpointError(f"{uri}: no uri ({error})") from None
    if parts is not None and (parts.scheme != "file" or parts.netloc not in ("", "localhost")):
        raise CheckpointError(f"{uri}: only file:// uris, absolute paths and what --adapter-source allows are served")
    path = unquote(parts.path) if parts is not None else uri
    if not path.startswith("/") or "\0" in path:
        raise CheckpointError(f"{uri!r}: expected an absolute path")
    return Path(path)


def _under(path: Path, roots: Sequence[Path], shown: str) -> Path:
    try:
        real = Path(os.path.realpath(path))
    except OSError as error:
        raise AdapterUnavailable(f"{shown}: cannot be resolved ({error.strerror})") from None
    except ValueError as error:  # what no file system encodes
        raise CheckpointError(f"{shown!a:.300}: cannot be resolved ({error!a:.200})") from None
    if not any(real.is_relative_to(os.path.realpath(root)) for root in roots):
        allowed = ", ".join(str(root) for root in roots)
        raise AdapterUnavailable(
            f"{shown}: outside the folders that this worker may read ({allowed}); see --adapter-root"
        )
    return real
