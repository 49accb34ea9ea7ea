"""A base model that an engine can be made of: cheap to identify, slow to load.

An engine's process builds it by name, so that nothing above needs what it is made of; the pool's config is checked
before its weights are loaded. Tests put deterministic ones in its place.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from lorapool.shared.catalog.pool_config import PoolConfig
from lorapool.worker.engine.port import Engine


class OnProgress(Protocol):
    """Told what goes on while something slow does; ``share`` of it that is done, where that is known."""

    def __call__(self, what: str, share: float | None = None) -> None: ...


@dataclass(frozen=True, slots=True)
class Loaded:
    """A model on its device. ``handed``: plain data from which the worker's loop makes what it needs."""

    engine: Engine
    handed: Mapping[str, Any] = field(default_factory=dict)


class Model(Protocol):
    """A base model, not yet loaded."""

    def identify(self, on_progress: OnProgress) -> PoolConfig:
        """What the pool must agree on. Raises BaseModelError."""
        ...

    def load(self, on_progress: OnProgress) -> Loaded:
        """Bring it onto the device. Raises BaseModelError."""
        ...
