"""What a worker serves: the base model on its device, and the engine over it.

``Model`` is what an engine's process builds: cheap to identify (so that the pool's config is checked first), slow to
load. ``Host`` is what the composition root hands to ``serve``: the same, seen from the worker's loop, wherever the
engine runs. Tests put deterministic ones in their place.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from lorapool.shared.catalog.pool_config import PoolConfig
from lorapool.worker.engine.adapter_cache import AdapterCache
from lorapool.worker.engine.engine import Engine
from lorapool.worker.engine.port import EnginePort
from lorapool.worker.engine.thread import EngineThread

if TYPE_CHECKING:
    from lorapool.worker.adapters.validator import Check
    from lorapool.worker.loop.admission import Tokenizer


class Say(Protocol):
    """Told what goes on while something slow does; ``share`` of it that is done, where that is known."""

    def __call__(self, what: str, share: float | None = None) -> None: ...


@dataclass(frozen=True, slots=True)
class Parts:
    """A loaded model, in the process where it runs. ``facts``: said in results and heartbeat; has ``device`` and
    ``dtype``. ``handed``: plain data from which the worker's loop makes what it needs."""

    engine: Engine
    adapters: AdapterCache
    max_model_len: int
    facts: Mapping[str, str | int | float]
    handed: Mapping[str, Any] = field(default_factory=dict)


class Model(Protocol):
    """A base model, not yet loaded."""

    def identify(self, say: Say) -> PoolConfig:
        """What the pool must agree on. Raises BaseModelError."""
        ...

    def load(self, say: Say) -> Parts:
        """Bring it onto the device. Raises BaseModelError."""
        ...


@dataclass(frozen=True, slots=True)
class Served:
    """Everything a Worker needs below it."""

    engine: EnginePort
    tokenizer: Tokenizer
    check: Check
    max_model_len: int
    facts: Mapping[str, str | int | float]


class Host(Protocol):
    """A model, seen from the worker's loop."""

    async def identify(self, say: Say) -> PoolConfig:
        """What the pool must agree on. Raises BaseModelError, EngineFailed."""
        ...

    async def load(self, say: Say) -> Served:
        """Ready to serve. Raises BaseModelError, EngineFailed."""
        ...

    async def close(self) -> None:
        """Give up what was not served."""
        ...


class InProcess:
    """A Host whose engine is a thread of this process."""

    def __init__(self, model: Model, tokenizer: Tokenizer, check: Check, *, step_timeout_s: float = 120.0) -> None:
        self._model, self._tokenizer, self._check, self._step_timeout_s = model, tokenizer, check, step_timeout_s

    async def identify(self, say: Say) -> PoolConfig:
        return await asyncio.to_thread(self._model.identify, say)

    async def load(self, say: Say) -> Served:
        parts = await asyncio.to_thread(self._model.load, say)
        await asyncio.to_thread(parts.engine.check_device)
        engine = EngineThread(parts.engine, parts.adapters, step_timeout_s=self._step_timeout_s)
        return Served(engine, self._tokenizer, self._check, parts.max_model_len, parts.facts)

    async def close(self) -> None:
        """Nothing outlives this process."""
