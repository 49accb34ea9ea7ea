"""An engine over the fake runner and the real adapter cache, with a clock that stands still."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from lorapool.worker.engine.adapter_cache import AdapterCache
from lorapool.worker.engine.adapter_source import AdapterSource
from lorapool.worker.engine.continuous_batch import ContinuousBatch
from lorapool.worker.engine.scheduler import Scheduler
from tests.fake_runner import FakeRunner, FakeStore
from tests.worker.tiny import Now


@dataclass
class Stored:
    digest: str
    nbytes: int = 1


def load(source: AdapterSource) -> Stored:
    if source.uri == "broken":
        raise OSError("cannot be read")
    return Stored(source.digest)


class Bench:
    """An engine with adapters a@1 … e@1, whose digests are their names."""

    def __init__(
        self,
        slots: int = 2,
        executor: Any = None,
        kind: type[FakeRunner] = FakeRunner,
        prefill_tokens: int = 8,
        **runner: Any,
    ) -> None:
        self.now_s = 0.0
        self.store = FakeStore(slots)
        self.runner: Any = kind(self.store, **runner)
        self.adapters = AdapterCache(self.store, load, 1 << 20, executor or Now(), lambda: self.now_s)
        for name in "abcde":
            self.adapters.know(AdapterSource(f"{name}@1", name, "fine"))
        self.adapters.know(AdapterSource("broken@1", "x", "broken"))
        scheduler = Scheduler(max_batch=4, prefill_tokens=prefill_tokens)
        self.engine = ContinuousBatch(self.runner, self.adapters, scheduler, lambda: self.now_s)
