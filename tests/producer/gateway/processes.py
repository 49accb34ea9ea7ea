"""`lorapool gateway` as a process of its own."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from lorapool.producer.testing.canned import CannedPool
from tests.fleet import WorkerProcess, started, until


@contextmanager
def gateway_process(pool: CannedPool, *flags: str, before: tuple[str, ...] = ()) -> Iterator[WorkerProcess]:
    """On a free port; ``where`` says which. ``before``: the words of a program that runs it."""
    program = str(Path(sys.executable).parent / "lorapool")
    command = [*before, program, "gateway", "--port", "0", "--redis-url", pool.redis_url, "--pool", pool.name, *flags]
    with started(command, "gateway") as process:
        yield process


async def where(process: WorkerProcess) -> str:
    """The URL that it said."""
    found = await until(lambda: re.search(r"http://[\d.]+:\d+", process.log()))
    return str(found[0])
