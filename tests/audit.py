"""Every engine that a test makes is audited when the test ends, whatever the test itself looked at."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from lorapool.worker.engine.engine import Engine


@pytest.fixture(autouse=True)
def audited(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Slots, references, KV rows and sequences agree at the end, after failures too; of engines over the same runner,
    those of the last one."""
    made: dict[int, Engine] = {}
    begin = Engine.__init__

    def remember(self: Engine, *args: Any, **options: Any) -> None:
        begin(self, *args, **options)
        made[id(self._runner)] = self

    monkeypatch.setattr(Engine, "__init__", remember)
    yield
    for engine in made.values():
        engine.check_integrity()
