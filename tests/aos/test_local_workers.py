"""Workers that a facade starts for itself: real subprocesses of the worker's command line, over the fake model."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from pathlib import Path

import pytest

from lorapool.producer import InvalidRequest, NoWorker
from tests.aos.conftest import MakeAdapter, Serve, text_of
from tests.fleet import ROOT, WorkerProcess, until

PROGRAM = (sys.executable, "-m", "tests.aos.worker_program")


async def test_a_server_with_workers_of_its_own(
    serve: Serve, make_adapter: MakeAdapter, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Start brings up as many as configured, with the cache and batch size given; they answer; stop lets what runs end
    and then ends them."""
    monkeypatch.chdir(ROOT)
    sizes = {"adapter_cache_size": 3, "max_batch_size": 4}
    server = serve(spawn_local=2, worker_command=PROGRAM, adapter_base_path=str(tmp_path), **sizes)
    assert await server.start(), server.last_error
    status = server.get_status()
    assert (6, 4, 2) == (status["cache_size"], status["config"]["max_batch_size"], len(status["workers"]))
    folder = make_adapter()
    server.registry.register_adapter("ceo", "CEO", str(folder))
    running = asyncio.create_task(server.inference("ceo", "hello", max_new_tokens=30))
    await until(lambda: server.get_status()["active_requests"])
    assert await server.stop(), server.last_error
    assert text_of("hello", folder, 30) == (await running)["generated_text"]
    assert [] == server.get_status()["workers"]


async def test_a_worker_that_cannot_start_is_told(
    serve: Serve, worker: WorkerProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its last words are the reason; nothing is left running."""
    monkeypatch.chdir(ROOT)
    server = serve(spawn_local=1, worker_command=(*PROGRAM, "--no-such-flag"))
    assert not await server.start()
    assert isinstance(server.last_error, NoWorker)
    assert "--no-such-flag" in str(server.last_error)
    assert not server.running


async def test_no_such_program(serve: Serve) -> None:
    """Named, with what to install."""
    server = serve(spawn_local=1, worker_command=("no-such-worker",))
    assert not await server.start()
    assert isinstance(server.last_error, InvalidRequest)
    assert "no-such-worker" in str(server.last_error)
    assert "lorapool[worker]" in str(server.last_error)


def test_the_facade_imports_no_worker() -> None:
    """lorapool.worker does not come with it."""
    code = "import sys, lorapool.producer.aos; print([name for name in sys.modules if 'lorapool.worker' in name])"
    assert "[]" == subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip()
