"""A worker of this machine's own: ``lorapool-worker`` beside this Python, to run jobs or a pool's chores. Whether it is
ready is the caller's to see, by its beats."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from lorapool.producer.local.process import LocalProcess
from lorapool.shared.errors import InvalidRequest

OFFLINE = {"HF_HUB_OFFLINE": "1"}  # for a base model in a folder: nothing is asked of a hub


@contextmanager
def worker_process(
    arguments: Sequence[str], folder: Path, name: str = "worker", *, environment: Mapping[str, str] | None = None
) -> Iterator[LocalProcess]:
    """``lorapool-worker run`` with ``arguments``, started; its log is in ``folder``. Raises InvalidRequest where no
    worker is installed."""
    with _started(name, ["run", *arguments], folder, environment) as worker:
        yield worker


@contextmanager
def maintenance_process(
    arguments: Sequence[str], folder: Path, *, environment: Mapping[str, str] | None = None
) -> Iterator[LocalProcess]:
    """``lorapool-worker maintenance``, as ``worker_process``."""
    with _started("maintenance", ["maintenance", *arguments], folder, environment) as maintenance:
        yield maintenance


@contextmanager
def _started(
    name: str, arguments: Sequence[str], folder: Path, environment: Mapping[str, str] | None
) -> Iterator[LocalProcess]:
    given = {**os.environ, "TMPDIR": str(folder), **(environment or {})}  # torch leaves caches in TMPDIR
    process = LocalProcess(name, [_program(), *arguments], folder, given)
    try:
        yield process
    finally:
        process.stop()


def _program() -> str:
    path = Path(sys.executable).parent / "lorapool-worker"
    if not path.is_file() or not _has_torch():
        raise InvalidRequest("there is no worker here: pip install 'lorapool[worker]'")
    return str(path)


def _has_torch() -> bool:
    """The program comes with the base install, what it needs does not."""
    from importlib.util import find_spec

    return find_spec("torch") is not None
