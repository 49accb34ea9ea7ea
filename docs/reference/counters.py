"""What is counted, where, and what each number means."""

from __future__ import annotations

from collections.abc import Mapping

from docs.reference.markdown import code, table
from lorapool.shared.fleet.counters import OF_JOBS, OF_WORKERS

HEAD = """# Counters

All counters are fields of plain hashes, and whole numbers that only grow: read them with `redis-cli HGETALL`, and take
differences for rates. Depths are no counters; read them from the structures in [keys.md](keys.md).
"""
JOBS = """## Of jobs

In `lp:{<pool>/<p>}:stats:<ref>` for each adapter version, and in `lp:{<pool>/<p>}:agent:<agent>` for each agent, over
all adapters. `lorapool stats` shows them.
"""
WORKERS = """## Of workers

In `lp:{<pool>}:worker:<worker>`, a worker's heartbeat, since that worker started. Those marked so are summed in
`lp:{<pool>}:usage` over all workers that the pool ever had; `lorapool cost` is made from these.
"""


def page() -> str:
    return "\n".join([HEAD, JOBS, _table(OF_JOBS), WORKERS, _table(OF_WORKERS)])


def _table(meanings: Mapping[str, str]) -> str:
    return table(("counter", "meaning"), [(code(name), meaning) for name, meaning in meanings.items()])
