"""A gateway process, and a client's program run against it in the client's own environment."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx

from tests.conftest import free_port
from tests.fleet import CEILING_S, WorkerProcess, started

PROGRAMS = Path(__file__).parent / "programs"


@contextmanager
def gateway(redis_url: str, files: Path, *flags: str, port: int | None = None) -> Iterator[tuple[str, WorkerProcess]]:
    """``lorapool gateway``: its URL, once it serves, and the process."""
    port = port or free_port()
    program = str(Path(sys.executable).parent / "lorapool")
    command = [program, "gateway", "--redis-url", redis_url, "--port", str(port), "--files", str(files), *flags]
    with started(command, f"gateway-{port}") as process:
        url = f"http://127.0.0.1:{port}"
        _wait_until_healthy(url, process)
        yield url, process


def run(client: str, python: str, url: str, *steps: str) -> list[str]:
    """The steps that the client's program took, in order; raises with what it said if one failed."""
    command = [python, str(PROGRAMS / f"{client}_client.py"), url, *steps]
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "COVERAGE"))}
    done = subprocess.run(command, capture_output=True, text=True, timeout=2 * CEILING_S, env=environment)
    assert done.returncode == 0, f"{client}, after {done.stdout.split()}:\n{done.stderr[-4000:]}"
    return done.stdout.split()


def _wait_until_healthy(url: str, process: WorkerProcess) -> None:
    give_up_at = time.monotonic() + CEILING_S
    while time.monotonic() < give_up_at and process.process.poll() is None:
        try:
            if httpx.get(f"{url}/health").status_code == 200:
                return
        except httpx.TransportError:
            pass
        time.sleep(0.05)
    raise RuntimeError("the gateway did not start")
