"""The engine's process ends with the worker, whatever it does then: steps, hangs in C, or loads."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.engine_port.bench import gone, loads
from tests.engine_port.model import SLEEP_IN_C
from tests.fleet import ROOT, until

WORKER = """
import asyncio, json, sys
from tests.engine_port.bench import process, quiet, request
async def main(options, prompt):
    engine = process(60.0, **options)
    await engine.load(quiet)
    engine.start()
    await engine.up()
    engine.add(request("s", prompt, 100_000))
    print(engine._child.process.pid, flush=True)
    await asyncio.sleep(600)
asyncio.run(main(json.loads(sys.argv[1]), json.loads(sys.argv[2])))
"""


@contextmanager
def _worker(options: dict[str, object], prompt: list[int]) -> Iterator[subprocess.Popen[bytes]]:
    command = [sys.executable, "-c", WORKER, json.dumps(options), json.dumps(prompt)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE) as worker:
        try:
            yield worker
        finally:
            worker.kill()


@pytest.mark.parametrize("prompt", [[1], [SLEEP_IN_C]])
async def test_the_engine_dies_with_the_worker(prompt: list[int]) -> None:
    """SIGKILL to the worker while it steps, or hangs with the interpreter's lock held."""
    with _worker({"step_s": 0.01}, prompt) as worker:
        assert worker.stdout is not None
        pid = int(worker.stdout.readline())
        worker.send_signal(signal.SIGKILL)
        await until(lambda: gone(pid))


async def test_a_loading_engine_dies_with_the_worker(tmp_path: Path) -> None:
    """In the middle of a load that never returns."""
    with _worker({"diary": str(tmp_path), "hangs": [1]}, [1]) as worker:
        [pid] = await until(lambda: loads(tmp_path))
        worker.send_signal(signal.SIGKILL)
        await until(lambda: gone(pid))


async def test_one_that_comes_too_late_ends_at_once() -> None:
    """The worker had gone before its engine's process could ask to be told."""
    command = [sys.executable, "-m", "lorapool.worker.engine_process.child", "0", "0", "1"]
    process = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.DEVNULL)  # noqa: ASYNC220  waited for below
    status = await until(lambda: process.poll() is not None and [process.returncode])
    assert [0] == status
