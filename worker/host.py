"""Host: a base model and its engine, seen from the worker's loop, wherever they run; and what comes of it.

``Served`` is all that a worker needs below it. Knows engines by their port alone.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Protocol

from lorapool.shared.catalog.pool_config import PoolConfig
from lorapool.worker.adapters.validator import Check
from lorapool.worker.engine.model import Model, OnProgress
from lorapool.worker.engine.port import AsyncEngine
from lorapool.worker.engine.thread import EngineThread
from lorapool.worker.grammar.judge import GrammarJudge
from lorapool.worker.loop.admission import Tokenizer


@dataclass(frozen=True, slots=True)
class Served:
    """Everything a Worker needs below it. ``grammars``: who judges them, where the engine serves any."""

    engine: AsyncEngine
    tokenizer: Tokenizer
    check: Check
    grammars: GrammarJudge | None = None


class Host(Protocol):
    """A model, seen from the worker's loop."""

    async def identify(self, on_progress: OnProgress) -> PoolConfig:
        """What the pool must agree on. Raises BaseModelError, EngineFailed."""
        ...

    async def load(self, on_progress: OnProgress) -> Served:
        """Ready to serve. Raises BaseModelError, EngineFailed."""
        ...

    async def close(self) -> None:
        """Give up what was not served."""
        ...


class InProcess:
    """A Host whose engine is a thread of this process."""

    def __init__(self, model: Model, tokenizer: Tokenizer, check: Check, *, step_timeout_s: float = 120.0) -> None:
        self._model, self._tokenizer, self._check, self._step_timeout_s = model, tokenizer, check, step_timeout_s

    async def identify(self, on_progress: OnProgress) -> PoolConfig:
        return await asyncio.to_thread(self._model.identify, on_progress)

    async def load(self, on_progress: OnProgress) -> Served:
        engine = (await asyncio.to_thread(self._model.load, on_progress)).engine
        await asyncio.to_thread(engine.check_device)
        return Served(EngineThread(engine, step_timeout_s=self._step_timeout_s), self._tokenizer, self._check)

    async def close(self) -> None:
        """Nothing outlives this process."""
