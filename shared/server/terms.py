"""Terms: how long a pool keeps things, how often it tries, how far it goes. Knows no Redis."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

_MINUTE, _HOUR, _DAY = 60_000, 3_600_000, 86_400_000

# Keys that vanish unless they are written again, by kind: the word after the prefix. A partition's own.
TTL_MS: Mapping[str, int] = MappingProxyType(
    {
        "alone": _DAY,
        "apart": _MINUTE,
        "claim": 10 * _MINUTE,
        "ctl": _HOUR,
        "here": _MINUTE,
        "idle": _MINUTE,
        "last_worker": _DAY,
        "malformed": 7 * _DAY,
        "quota": 2 * _DAY,
        "reaped": 10_000,  # so long after a loss, what its worker loses besides was lost together with it
        "reaper": _HOUR,
        "report": _HOUR,
        "rested": _HOUR,
        "wake": _MINUTE,
    }
)
WAKE_WORKER_TTL_MS = 2_000  # of `wake:<worker>`: who sleeps answers at once

# The same of keys that a pool has once.
POOL_TTL_MS: Mapping[str, int] = MappingProxyType(
    {
        "batch": 30 * _DAY,  # after its end; and its files
        "chores": 7 * _DAY,
        "feeders": _HOUR,
        "history": _DAY,
        "members": _HOUR,
        "seen": 7 * _DAY,
    }
)

MAX_JOBS = 64  # of one script call
CONTROL_MAX = 1_000  # requests to a worker that are kept
AUDIT_MAX = 10_000  # acts that are kept, about


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
    # An agent's counters, from its last job on (adapters' keep the sums); and a revoked key's record.
    agent_ttl_ms: int = 30 * 24 * 3_600_000
    notice_bytes: int = 512
    max_attempts: int = 3
    max_lost: int = 3
    backoff_ms: int = 1_000
    backoff_max_ms: int = 60_000
    lease_ms: int = 15_000
    max_depth: int = 10_000
    agent_window: int = 64
    over_quota_ms: int = 5_000  # so much later is the turn of what an agent sends beyond a quarter of its window
    normal_passed_ms: int = 30_000  # by jobs of high priority that came so much later
    low_passed_ms: int = 300_000  # by any others
    elsewhere_ms: int = 2_000  # so long a retry is left to other workers than the one where it failed
    view_size: int = 32
    last_workers: int = 16

    def passed_ms(self, lane: str) -> int:
        """By jobs of other lanes that came so much later, those of this lane may be passed."""
        if lane in {"high", "retry"}:
            return 0
        return self.low_passed_ms if lane.startswith("low") else self.normal_passed_ms
