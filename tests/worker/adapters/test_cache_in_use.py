"""Who reads a cached adapter keeps it from being cleared away: each place that reads one, and across processes."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import fsspec
import pytest

from lorapool.shared import remote
from lorapool.shared.catalog.adapter_record import AdapterRecord
from lorapool.shared.digest import CONFIG_NAME, WEIGHTS_NAME, adapter_digest
from lorapool.worker.adapters.cache_folder import CacheFolder
from lorapool.worker.adapters.checkpoint import ModelSpec
from lorapool.worker.adapters.files import AdapterFiles
from lorapool.worker.adapters.judge import Judge
from lorapool.worker.engine.adapter_source import AdapterSource
from lorapool.worker.native import model
from tests.fleet import until
from tests.worker.maintenance.test_maintenance import maintenance

CFO = Path(__file__).parents[3] / "examples" / "adapters" / "cfo"
PLACE = "memory://bucket"
RECORD = AdapterRecord(id="cfo", version="1", digest=adapter_digest(CFO), uri=f"{PLACE}/cfo")
ENTRY = sha256(b"entry").hexdigest()
READER = """
import sys
from pathlib import Path
from lorapool.worker.adapters.cache_folder import CacheFolder
with CacheFolder(Path(sys.argv[1])).reading(sys.argv[2], lambda folder: (folder / "weights").write_bytes(b"x")):
    print("reading", flush=True)
    sys.stdin.read()
"""


@contextmanager
def reader(cache: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A process in the middle of reading ``ENTRY``."""
    command = [sys.executable, "-c", READER, str(cache), ENTRY]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        try:
            assert b"reading\n" == process.stdout.readline()
            yield process
        finally:
            process.kill()


async def test_maintenance_waits_for_a_reader_in_another_process(redis_url: str, tmp_path: Path) -> None:
    """However old the entry and small the budget; a reader that is killed holds nothing any more."""
    entry, flags = tmp_path / ENTRY, ("--adapter-cache", str(tmp_path), "--adapter-cache-bytes", "0")
    with reader(tmp_path) as reading:
        os.utime(entry, (0, 0))
        with maintenance(redis_url, *flags, "--adapter-cache-every", "0.1") as sweeper:
            await until(lambda: len(sweeper.events("cache swept")) > 2)
            assert (entry / "weights").exists()
            reading.kill()
            await until(lambda: not entry.exists())
            assert 0 == sweeper.stop()


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[CacheFolder]:
    """A cache without any budget, beside a store that has the CFO's adapter."""
    monkeypatch.setitem(remote.SCHEMES, "memory", "fsspec")
    memory = fsspec.filesystem("memory")
    memory.store.clear()
    for name in (CONFIG_NAME, WEIGHTS_NAME):
        memory.pipe(f"/bucket/cfo/{name}", (CFO / name).read_bytes())
    yield CacheFolder(tmp_path, 0)
    memory.store.clear()


def sweep_old(cache: CacheFolder) -> int:
    """As if its entries had last been used long ago."""
    os.utime(cache.folder / RECORD.digest, (0, 0))
    return cache.sweep().removed


def test_an_adapter_that_is_loaded_stays(cache: CacheFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    """While the engine's process reads it; then it may go."""
    removed = []
    monkeypatch.setattr(model, "load_checkpoint", lambda *_: removed.append(sweep_old(cache)))
    config: Any = SimpleNamespace(adapter_roots=(), adapter_places=(PLACE,), adapter_cache=cache.folder, max_rank=8)
    runner: Any = SimpleNamespace(spec=ModelSpec({}))
    model._Adapters(config, runner).load(AdapterSource(RECORD.ref, RECORD.digest, RECORD.uri))
    assert ([0], 1) == (removed, sweep_old(cache))


def test_an_adapter_that_is_judged_stays(cache: CacheFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    """While the judge's process reads it; then it may go."""
    removed = []

    def ask(_request: object) -> dict[str, Any]:
        removed.append(sweep_old(cache))
        return {"facts": {}}

    judge = Judge(AdapterFiles((), (PLACE,), cache, 1 << 20), {}, {}, "")
    monkeypatch.setattr(judge._process, "ask", ask)
    judge.check(RECORD)
    assert ([0], 1) == (removed, sweep_old(cache))
