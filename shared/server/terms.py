"""Terms: how long a pool keeps things, how often it tries, how far it goes. Knows no Redis."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Terms:
    """How long things are kept and how often tried; the same for every client and worker of a pool."""

    result_ttl_ms: int = 24 * 3_600_000
    dead_ttl_ms: int = 7 * 24 * 3_600_000
    tokens_ttl_ms: int = 3_600_000
    inbox_ttl_ms: int = 3_600_000
    inbox_max: int = 10_000  # entries
    inbox_bytes: int = 2 << 20  # so much unread, a client hears of states alone
    inbox_unread: int = 256  # entries that then stay
    agent_ttl_ms: int = 30 * 24 * 3_600_000  # an agent's counters, from its last job on; adapters' keep the sums
    notice_bytes: int = 512
    max_attempts: int = 3
    max_lost: int = 3
    backoff_ms: int = 1_000
    backoff_max_ms: int = 60_000
    lease_ms: int = 15_000
    max_depth: int = 10_000
    agent_window: int = 64
    crowd_ms: int = 5_000  # so much later is the turn of what an agent sends beyond a quarter of its window
    normal_passed_ms: int = 30_000  # by jobs of high priority that came so much later
    low_passed_ms: int = 300_000  # by any others
    elsewhere_ms: int = 2_000  # so long a retry is left to other workers than the one where it failed
    view_size: int = 32
    last_workers: int = 16
