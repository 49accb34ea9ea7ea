"""The demo as a newcomer runs it, once."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from examples.base_model import prepare
from examples.voices import VOICES

ROOT = Path(__file__).parents[2]
COMMAND = [sys.executable, "-m", "examples.demo"]

pytestmark = pytest.mark.timeout(400)  # the fixture's time, on a machine that others keep busy


@pytest.fixture(scope="module", autouse=True)
def base_model() -> None:
    """Made before the clock of a test runs."""
    prepare()


@pytest.fixture(scope="module")
def scratch(tmp_path_factory) -> Path:
    """Where the demo puts its temporary files, so that leftovers are seen."""
    return tmp_path_factory.mktemp("demo")


@pytest.fixture(scope="module")
def demo(scratch, base_model) -> subprocess.CompletedProcess:
    """The demo's run, with its output in a pipe of 100 columns."""
    environment = environment_of(scratch)
    return subprocess.run(COMMAND, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300)


def environment_of(scratch: Path) -> dict[str, str]:
    return {**os.environ, "TMPDIR": str(scratch), "COLUMNS": "100"}


def processes_of(scratch: Path) -> list[str]:
    """Commands of live processes that carry the demo's temporary folder in their environment."""
    processes = []
    for process in psutil.process_iter():
        try:
            ours = process.environ().get("TMPDIR", "").startswith(str(scratch))
            if ours and process.status() != psutil.STATUS_ZOMBIE:
                processes.append(" ".join(process.cmdline()))
        except psutil.Error:
            continue
    return processes


def test_demo_succeeds(demo):
    """The demo exits 0 and says so."""
    assert demo.returncode == 0, demo.stdout + demo.stderr
    assert "done; nothing is left running" in demo.stdout
    assert demo.stderr == ""


@pytest.mark.parametrize("voice", VOICES.values(), ids=VOICES)
def test_each_agent_hears_its_own_voice(demo, voice):
    """Every role's answer is shown, in its voice, beside the ref and digest of the adapter that gave it."""
    assert demo.returncode == 0, demo.stdout + demo.stderr
    assert re.search(rf"{voice.role}@1\.0\.0 +sha256 [0-9a-f]{{12}}", demo.stdout)
    assert voice.opening in demo.stdout


def test_counters_are_read_by_the_literal_command(demo):
    """The counters are shown under the very redis-cli command that reads them, numbered as redis-cli does."""
    assert re.search(r"redis-cli -p \d+ HGETALL 'lp:\{default/0\}:stats:cfo@1\.0\.0'", demo.stdout)
    assert re.search(r'\d+\) "succeeded"', demo.stdout)
    assert "worker hit rate" in demo.stdout


def test_demo_leaves_nothing(demo, scratch):
    """No process and no file of the demo outlives it."""
    assert demo.returncode == 0, demo.stdout + demo.stderr
    assert processes_of(scratch) == []
    assert list(scratch.iterdir()) == []


def test_interrupted_demo_leaves_nothing(scratch):
    """Ctrl-C while the worker loads its model stops worker and server and deletes the folder."""
    demo = subprocess.Popen(
        COMMAND, cwd=ROOT, env=environment_of(scratch), stdout=subprocess.PIPE, text=True, start_new_session=True
    )
    with demo:
        while "worker: starting" not in demo.stdout.readline():
            assert demo.poll() is None
        time.sleep(1.0)
        demo.send_signal(signal.SIGINT)
        rest = demo.stdout.read()
    assert demo.returncode == 130, rest
    assert processes_of(scratch) == []
    assert list(scratch.iterdir()) == []


def test_killed_demo_leaves_no_process(tmp_path):
    """Even when the demo is killed outright, its worker and its server end by themselves."""
    demo = subprocess.Popen(COMMAND, cwd=ROOT, env=environment_of(tmp_path), stdout=subprocess.PIPE, text=True)
    with demo:
        while "worker: starting" not in demo.stdout.readline():
            assert demo.poll() is None
        demo.kill()
    give_up_at = time.monotonic() + 30
    while processes_of(tmp_path) and time.monotonic() < give_up_at:
        time.sleep(0.1)
    assert processes_of(tmp_path) == []


def test_missing_server_is_one_clear_line(scratch):
    """A server that does not answer ends the demo with one line that names it, and status 1."""
    command = [*COMMAND, "--redis-url", "redis://127.0.0.1:9"]
    demo = subprocess.run(command, cwd=ROOT, env=environment_of(scratch), capture_output=True, text=True, timeout=60)
    assert demo.returncode == 1
    assert "127.0.0.1:9" in demo.stdout.splitlines()[-1]
    assert "Traceback" not in demo.stdout + demo.stderr
    assert processes_of(scratch) == []
