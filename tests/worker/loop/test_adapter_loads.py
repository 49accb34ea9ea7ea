"""Loads of adapters as they are told to the pool: each counted once."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest

from lorapool.worker.loop.adapter_loads import AdapterLoads


class Sums:
    """A server that counts a report of one name once, and loses the reply of the calls in ``lost``."""

    def __init__(self, lost: frozenset[int] = frozenset()) -> None:
        self.lost, self.calls, self.names = lost, 0, set[str]()
        self.total: Counter[str] = Counter()

    async def add_loads(self, _worker: str, name: str, loads: Counter[str]) -> None:
        self.calls += 1
        if name not in self.names:
            self.names.add(name)
            self.total += loads
        if self.calls in self.lost:
            raise ConnectionError("the reply was lost")


def loads_of(sums: Any) -> AdapterLoads:
    return AdapterLoads(sums, "w1")


async def test_only_what_is_new_is_sent() -> None:
    """Differences of the engine's counts; nothing new, no round trip."""
    sums = Sums()
    loads = loads_of(sums)
    for counted in ({"a@1": 2}, {"a@1": 2}, {"a@1": 3, "b@1": 1}):
        await loads.send(counted)
    assert (2, {"a@1": 3, "b@1": 1}) == (sums.calls, sums.total)


async def test_a_lost_reply_counts_nothing_twice() -> None:
    """The same report under the same name, and only then what came meanwhile."""
    sums = Sums(lost=frozenset({1}))
    loads = loads_of(sums)
    with pytest.raises(ConnectionError):
        await loads.send({"a@1": 2})
    await loads.send({"a@1": 5})
    assert {"a@1": 2} == sums.total
    await loads.send({"a@1": 5})
    assert ({"a@1": 5}, 2) == (sums.total, len(sums.names))
