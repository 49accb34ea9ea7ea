"""``lorapool up``: one command, from nothing to an answer over HTTP and back to nothing."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest

from examples.voices import VOICES
from lorapool.producer.client.client import Client
from tests.e2e.conftest import ADAPTERS
from tests.fleet import CEILING_S, until

UP = [str(Path(sys.executable).parent / "lorapool"), "up"]
pytestmark = pytest.mark.timeout(500)


@contextmanager
def running(folder: Path, *flags: str) -> Iterator[tuple[subprocess.Popen[bytes], Path]]:
    """The command with its output in a file, and its temporary files below ``folder``."""
    printed, scratch = folder / "printed.txt", folder / "scratch"
    scratch.mkdir()
    environment = {name: value for name, value in os.environ.items() if not name.startswith("LORAPOOL_REDIS")}
    with printed.open("wb") as out:
        up = subprocess.Popen(
            [*UP, "--port", "0", *flags], stdout=out, stderr=out, env={**environment, "TMPDIR": str(scratch)}
        )
    try:
        yield up, printed
    finally:
        up.kill()
        up.wait()


async def said(printed: Path, pattern: str, up: subprocess.Popen[bytes]) -> str:
    """What the first group of it stands for, once it was printed."""

    def found() -> str:
        assert up.poll() is None, printed.read_text()
        match = re.search(pattern, printed.read_text())
        return match[1] if match else ""

    return str(await until(found, 2 * CEILING_S))  # a model is loaded


def posted(url: str, body: dict[str, Any]) -> dict[str, Any]:
    request = urllib.request.Request(url, json.dumps(body).encode(), {"content-type": "application/json"})
    with urllib.request.urlopen(request) as answer:
        reply: dict[str, Any] = json.load(answer)
    return reply


async def test_one_command_is_a_whole_pool(base_model: Path, tmp_path: Path) -> None:
    """It says what it starts and how to ask; every adapter below the folder answers by its name; schedules are
    looked at; Ctrl-C ends it with 0 and leaves no process and no file."""
    limits = ("--slots", "2", "--max-rank", "8", "--max-model-len", "256")
    with running(tmp_path, "--base-model", str(base_model), "--adapters", str(ADAPTERS), *limits) as (up, printed):
        url = await said(printed, r"gateway: OpenAI's API on (http://127\.0\.0\.1:\d+)/v1, console on", up)
        ask = {"model": "cfo", "max_tokens": 8, "temperature": 0, "messages": [{"role": "user", "content": "Hello?"}]}
        reply = await asyncio.to_thread(posted, f"{url}/v1/chat/completions", ask)
        assert reply["choices"][0]["message"]["content"].startswith(VOICES["cfo"].opening)
        async with Client(await said(printed, r"(redis://127\.0\.0\.1:\d+)", up)) as pool:
            await until(pool.schedules.watched, CEILING_S)
        family = psutil.Process(up.pid).children(recursive=True)
        up.send_signal(signal.SIGINT)
        assert 0 == await asyncio.to_thread(up.wait, CEILING_S), printed.read_text()
    told = printed.read_text()
    for part in (
        "server: embedded Valkey",
        "worker: ready on cpu",
        "adapter: ceo@1.0.0",
        "curl http",
        "nothing is left",
    ):
        assert part in told
    assert len(family) >= 3
    assert [] == [process for process in family if process.is_running() and process.status() != psutil.STATUS_ZOMBIE]
    assert [] == list((tmp_path / "scratch").iterdir())


async def test_what_ends_by_itself_ends_all(real_server: str, base_model: Path, tmp_path: Path) -> None:
    """In a pool that it joined, which stays: a worker that dies is told with its last words, and the command fails."""
    flags = ("--base-model", str(base_model), "--redis-url", real_server, "--pool", "joined", "--max-model-len", "256")
    with running(tmp_path, *flags) as (up, printed):
        await said(printed, r"(gateway: )", up)
        [worker] = [
            child for child in psutil.Process(up.pid).children() if "lorapool-worker" in " ".join(child.cmdline())
        ]
        worker.kill()
        assert 1 == await asyncio.to_thread(up.wait, CEILING_S), printed.read_text()
    assert "the worker ended with status -9" in printed.read_text()
    async with Client(real_server, pool="joined") as pool:
        assert await pool.config()


@pytest.mark.parametrize(
    ("flags", "complaint"),
    [
        (("--adapters", "nowhere"), "nowhere': no such folder"),
        (("--redis-url", "redis://127.0.0.1:1"), "does not answer"),
        (("--host", "192.0.2.1"), "cannot be listened on"),
    ],
)
def test_what_cannot_be_is_said_at_once(tmp_path: Path, flags: tuple[str, ...], complaint: str) -> None:
    """In one line, before a model is loaded."""
    ended = subprocess.run([*UP, "--base-model", str(tmp_path), *flags], capture_output=True, text=True, cwd=tmp_path)
    assert 1 == ended.returncode
    assert complaint in ended.stderr
    assert "Traceback" not in ended.stderr
