"""What a heartbeat says of a worker."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from lorapool.worker.engine.port import EngineCounters, Health, Residency
from lorapool.worker.loop import heartbeat
from lorapool.worker.loop.heartbeat import Heartbeat, stride


class Engine:
    """One that says what it is told to."""

    def __init__(self) -> None:
        self.counted = EngineCounters()
        self.state = Health("running", "", 0.2, 0)

    def counters(self) -> EngineCounters:
        return self.counted

    def health(self) -> Health:
        return self.state

    def residency(self) -> Residency:
        return Residency(frozenset({"b@1", "a@1"}), frozenset({"c@1"}), frozenset({"d@1"}))

    def busy_time(self) -> dict[str, int]:
        return {"up_ms": 1, "busy_ms": 2, "decode_only_ms": 3, "decode_only_tokens": 4}


class Pool:
    """Presence, loads and peers, as one heartbeat uses them."""

    def __init__(self) -> None:
        self.beats: list[dict[str, Any]] = []
        self.loads: list[dict[str, int]] = []
        self.marks: list[str] = []
        self.count, self.stride, self.every_s = 600, 1, 0.0

    async def beat(self, fields: dict[str, Any], _totals: object) -> str:
        self.beats.append(fields)
        return f"mark{len(self.beats)}"

    async def send(self, loaded: dict[str, int]) -> None:
        self.loads.append(dict(loaded))

    async def heed(self, mark: str) -> None:
        self.marks.append(mark)


class Desk:
    def __init__(self) -> None:
        self.engine, self.pool = Engine(), Pool()
        validator: Any = SimpleNamespace(not_here=SimpleNamespace(refs=lambda: ("far@1",)), judging="e@1")
        pool: Any = self.pool
        engine: Any = self.engine
        jobs: Any = JobLease()
        self.heartbeat = Heartbeat(pool, pool, engine, jobs, validator, {"device": "d"}, rows=8, peers=pool)


class JobLease:
    def __len__(self) -> int:
        return 5

    def unfinished(self) -> int:
        return 3


def test_it_says_what_there_is() -> None:
    """Identity, rows, residency, and every counter by its name."""
    fields = Desk().heartbeat.fields()
    shown = {"device": "d", "state": "running", "held": 5, "free_rows": 5, "resident": "a@1 b@1", "loading": "c@1"}
    assert shown | {"on_host": "d@1", "not_here": "far@1", "judging": "e@1", "busy_ms": 2} == {
        name: fields[name] for name in (*shown, "on_host", "not_here", "judging", "busy_ms")
    }
    assert set(heartbeat.COUNTED) <= fields.keys()


def test_the_rate_is_that_since_the_last_look(monkeypatch: pytest.MonkeyPatch) -> None:
    """New tokens over the seconds between two beats; none, and it is 0."""
    now = [100.0]
    monkeypatch.setattr(heartbeat.time, "monotonic", lambda: now[0])
    desk = Desk()
    rates = []
    for tokens, seconds in ((50, 2.0), (50, 2.0), (80, 0.5)):
        desk.engine.counted.decode_tokens, now[0] = tokens, now[0] + seconds
        rates.append(desk.heartbeat.fields()["tokens_per_s"])
    assert [25.0, 0.0, 60.0] == rates


def test_an_engine_that_starts_again_is_loading() -> None:
    """Also while the worker drains; what ails it is said, and a step counts as old from a second on."""
    desk = Desk()
    desk.heartbeat.drain()
    assert ("draining", 0) == tuple(desk.heartbeat.fields()[name] for name in ("state", "step_age_ms"))
    desk.engine.state = Health("starting", "engine died", 1.5, 2)
    fields = desk.heartbeat.fields()
    assert ("loading", "engine died", 1500, 2) == tuple(
        fields[name] for name in ("state", "ails", "step_age_ms", "restarts")
    )


async def test_a_beat_tells_the_loads_and_heeds_the_answer() -> None:
    """In a fleet of hundreds the numbers go with every so many beats."""
    desk = Desk()
    desk.engine.counted.loaded["a@1"] = 2
    await desk.heartbeat.beat()
    await desk.heartbeat.end()
    assert ([{"a@1": 2}, {"a@1": 2}], ["mark1"], 3) == (desk.pool.loads, desk.pool.marks, desk.pool.stride)
    assert [1, 1, 2, 5, 5] == [stride(workers) for workers in (0, 249, 250, 1000, 9999)]
