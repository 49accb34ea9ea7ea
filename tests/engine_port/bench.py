"""Bench: an engine behind its port, in either form, and all that it has reported."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from lorapool.shared.job import BASE_REF
from lorapool.worker.config import WorkerConfig
from lorapool.worker.engine.adapter_source import AdapterSource
from lorapool.worker.engine.port import AsyncEngine, Lost, Request, Sampling, Start, Update
from lorapool.worker.engine.thread import EngineThread
from lorapool.worker.engine_process.supervisor import EngineProcess, Program
from tests.engine_port import model

PATIENCE_S = 60.0


def quiet(_what: str, _share: float | None = None) -> None:
    """Say nothing of what goes on."""


class Bench:
    """``pid`` is that of the engine's process."""

    def __init__(self, engine: AsyncEngine) -> None:
        self.engine = engine
        self.updates: list[Update] = []
        self.starts: list[Start] = []
        self.losses: list[Lost] = []
        self.descriptors = 0  # open at first, where a test says so

    async def until(self, condition: Callable[[], object]) -> None:
        """Take reports until the condition holds."""
        async with asyncio.timeout(PATIENCE_S):
            while not condition():
                report = await self.engine.report()
                self.updates += report.updates
                self.starts += report.starts
                self.losses += [report.lost] if report.lost else []

    async def ends(self, *seq_ids: str) -> None:
        """Take reports until these have left."""
        await self.until(lambda: all(self.ended(seq_id) for seq_id in seq_ids))

    async def lost(self) -> Lost:
        """The next loss."""
        count = len(self.losses)
        await self.until(lambda: len(self.losses) > count)
        return self.losses[-1]

    async def comes_up(self) -> None:
        async with asyncio.timeout(PATIENCE_S):
            await self.engine.up()

    def tokens(self, seq_id: str) -> list[int]:
        return [token for update in self.updates if update.seq_id == seq_id for token in update.token_ids]

    def ended(self, seq_id: str) -> bool:
        return any(update.seq_id == seq_id and update.is_last for update in self.updates)

    def error(self, seq_id: str) -> Exception:
        [error] = [update.error for update in self.updates if update.seq_id == seq_id and update.error]
        return error

    def add(self, seq_id: str, prompt: list[int], tokens: int = 4, **options: Any) -> None:
        self.engine.add(request(seq_id, prompt, tokens, **options))

    @property
    def pid(self) -> int:
        assert isinstance(self.engine, EngineProcess) and self.engine._child is not None
        return self.engine._child.process.pid


def request(
    seq_id: str,
    prompt: list[int],
    tokens: int = 4,
    ref: str = BASE_REF,
    digest: str = "",
    uri: str = "",
    grammar: str | None = None,
    **params: Any,
) -> Request:
    """``digest``: the ref itself, if not given."""
    source = None if ref == BASE_REF else AdapterSource(ref, digest or ref, uri)
    return Request(seq_id, ref, prompt, Sampling(tokens, **params), source, grammar)


def program(slots: int = 2, max_batch: int = 4, kind: str = "PortModel", **model: Any) -> Program:
    config = WorkerConfig.parse(worker_id="w", base_model="port", slots=slots, max_batch=max_batch)
    return Program(f"tests.engine_port.model:{kind}", config, model, log_level="error")


def process(step_timeout_s: float = 60.0, **options: Any) -> EngineProcess:
    return EngineProcess(program(**options), step_timeout_s=step_timeout_s)


@asynccontextmanager
async def in_process(step_timeout_s: float = 60.0, **options: Any) -> AsyncIterator[Bench]:
    """The engine in a process of its own, loaded and started; nothing of it is left at the end."""
    engine = process(step_timeout_s, **options)
    bench, pids = Bench(engine), set[int]()
    try:
        await engine.load(quiet)
        pids.add(bench.pid)
        engine.start()
        await bench.comes_up()
        yield bench
        pids |= {bench.pid} if engine._child is not None else set()
    finally:
        await engine.close()
    assert all(gone(pid) for pid in pids)


@asynccontextmanager
async def in_thread(step_timeout_s: float = 60.0, **options: Any) -> AsyncIterator[Bench]:
    """The engine in a thread of this process, started."""
    made = program(**options)
    loaded = await asyncio.to_thread(
        getattr(model, made.target.partition(":")[2])(made.config, **made.options).load, quiet
    )
    engine = EngineThread(loaded.engine, step_timeout_s=step_timeout_s)
    engine.start()
    try:
        yield Bench(engine)
    finally:
        await engine.close()


def descriptors() -> int:
    """How many this process has open."""
    return len(os.listdir("/proc/self/fd"))  # noqa: PTH208  names only


def gone(pid: int | str) -> bool:
    """Neither a process nor a zombie."""
    return not Path(f"/proc/{pid}").exists()


def loads(diary: Path) -> list[str]:
    """The processes that have begun to load, in order."""
    path = diary / "loads"
    return path.read_text().split() if path.exists() else []
