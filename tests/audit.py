"""Every engine that a test makes is audited when the test ends, whatever the test itself looked at."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from lorapool.worker.engine.continuous_batch import ContinuousBatch


@pytest.fixture(autouse=True)
def audited(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Slots, references, KV rows and sequences agree at the end, after failures too; of engines over the same runner,
    those of the last one."""
    made: dict[int, ContinuousBatch] = {}
    begin = ContinuousBatch.__init__

    def remember(self: ContinuousBatch, *args: Any, **options: Any) -> None:
        begin(self, *args, **options)
        made[id(self._runner)] = self

    monkeypatch.setattr(ContinuousBatch, "__init__", remember)
    yield
    for engine in made.values():
        engine.check_integrity()
