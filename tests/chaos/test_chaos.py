"""Chaos: workers, server and connections fail again and again, and every promise to the agents holds.

The short form. LORAPOOL_CHAOS_SEED repeats a run's jobs and faults; ``make chaos`` is the long form.
"""

from __future__ import annotations

import os
import secrets

import pytest

from tests.chaos.battle import Battle, Scale
from tests.chaos.plan import SHARES

SHORT = Scale(jobs=700, rounds=1, rare=1)


@pytest.mark.timeout(300)
async def test_nothing_lost_nothing_twice() -> None:
    """Every accepted job ends once, with the right tokens; every kind of fault struck, at least half of them while
    eight or more jobs ran; nothing stays behind."""
    seed = int(os.environ.get("LORAPOOL_CHAOS_SEED") or secrets.randbelow(1_000_000))
    print(f"LORAPOOL_CHAOS_SEED={seed}")
    report = await Battle(seed, SHORT).fight()
    print("\n".join(report.lines()))
    assert [] == report.verdict.complaints
    assert [] == list(report.shortfalls())
    assert SHARES == {kind: tally.struck for kind, tally in report.tallies.items()}
