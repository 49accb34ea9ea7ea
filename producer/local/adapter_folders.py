"""The PEFT folders below a folder, each with the name and version that its place gives it.

``DIR/cfo`` is ``cfo`` 1.0.0, ``DIR/cfo/2.1.0`` is ``cfo`` 2.1.0, ``DIR/team/cfo`` is ``team.cfo``. Reads names alone,
no file.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from lorapool.shared.digest import CONFIG_NAME, WEIGHTS_NAME
from lorapool.shared.errors import InvalidRequest
from lorapool.shared.job import check_name

DEEPEST = 8
FIRST_VERSION = "1.0.0"
_VERSION = re.compile(r"v?\d[A-Za-z0-9._-]*")


@dataclass(frozen=True, slots=True)
class AdapterFolder:
    id: str
    version: str
    path: Path


def adapter_folders(root: Path) -> list[AdapterFolder]:
    """By id and version. Raises InvalidRequest where ``root`` is no folder, or a folder's place gives no name."""
    if not root.is_dir():
        raise InvalidRequest(f"adapters = {str(root)!r}: no such folder")
    return sorted((_named(root, path) for path in _found(root)), key=lambda found: (found.id, found.version))


def _found(root: Path) -> Iterator[Path]:
    for place, folders, files in os.walk(root):
        if {CONFIG_NAME, WEIGHTS_NAME} <= set(files):
            folders.clear()
            yield Path(place)
        elif len(Path(place).relative_to(root).parts) >= DEEPEST:
            folders.clear()
        folders[:] = [name for name in folders if not name.startswith((".", "checkpoint-"))]


def _named(root: Path, path: Path) -> AdapterFolder:
    parts = list(path.relative_to(root).parts) or [root.resolve().name]
    version = parts.pop() if len(parts) > 1 and _VERSION.fullmatch(parts[-1]) else FIRST_VERSION
    try:
        return AdapterFolder(check_name("adapter id", ".".join(parts)), check_name("version", version), path)
    except InvalidRequest as error:
        raise InvalidRequest(f"{path}: {error}; rename the folder") from None
