"""What a worker serves: the base model on its device, and the engine over it.

``Model`` is what the composition root hands to ``serve``: cheap to identify (so that the pool's config is checked
first), slow to load. Tests put a deterministic one in its place.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from lorapool.shared.catalog import PoolConfig
from lorapool.worker.adapters import AdapterCache
from lorapool.worker.admission import Tokenizer
from lorapool.worker.engine import Engine
from lorapool.worker.validator import Check


@dataclass(frozen=True, slots=True)
class Loaded:
    """Everything a Worker needs below it. ``facts``: said in results and heartbeat; has ``device`` and ``dtype``."""

    engine: Engine
    adapters: AdapterCache
    tokenizer: Tokenizer
    check: Check
    max_model_len: int
    facts: Mapping[str, str | int | float]


class Model(Protocol):
    """A base model, not yet loaded."""

    def identify(self) -> PoolConfig:
        """What the pool must agree on. Raises BaseModelError."""
        ...

    def load(self) -> Loaded:
        """Bring it onto the device. Raises BaseModelError."""
        ...
