"""A worker of this machine's own: ``lorapool-worker run`` beside this Python. Whether it is ready is the caller's to
see, by its beats."""

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
    given = {**os.environ, "TMPDIR": str(folder), **(environment or {})}  # torch leaves caches in TMPDIR
    worker = LocalProcess(name, [_program(), "run", *arguments], folder, given)
    try:
        yield worker
    finally:
        worker.stop()


def _program() -> str:
    path = Path(sys.executable).parent / "lorapool-worker"
    if not path.is_file() or not _has_torch():
        raise InvalidRequest("there is no worker here: pip install 'lorapool[worker]'")
    return str(path)


def _has_torch() -> bool:
    """The program comes with the base install, what it needs does not."""
    from importlib.util import find_spec

    return find_spec("torch") is not None
