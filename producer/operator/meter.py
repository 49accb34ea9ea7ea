"""Meter: what workers and scripts have counted, and what was counted since an earlier bill. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from lorapool.shared.errors import InvalidRequest

Counters = Mapping[str, int | float]
POINTS_IN_TIME = frozenset({"since_ms", "last_ms"})


@dataclass(frozen=True, slots=True)
class Meter:
    """What was counted: per adapter ref, per agent, and by all workers together; ``model_load_ms`` of one worker."""

    adapters: Mapping[str, Counters]
    agents: Mapping[str, Counters]
    usage: Counters
    model_load_ms: float = 0.0

    def since(self, earlier: Meter) -> Meter:
        """What was counted after ``earlier``. Raises InvalidRequest if that is of another pool."""
        return Meter(
            _grown(self.adapters, earlier.adapters),
            _grown(self.agents, earlier.agents),
            _grown({"usage": self.usage}, {"usage": earlier.usage}).get("usage", {}),
            self.model_load_ms,
        )

    @classmethod
    def of(cls, document: Mapping[str, Any]) -> Meter:
        """From ``Bill.document()``. Raises InvalidRequest for anything else."""
        try:
            return cls(**document["counters"])
        except (KeyError, TypeError) as error:
            raise InvalidRequest(f"this is no bill that `lorapool cost --json` wrote: {error!r}") from None


def _grown(now: Mapping[str, Counters], then: Mapping[str, Counters]) -> dict[str, Counters]:
    grown = {}
    for name, counters in now.items():
        before = then.get(name, {})
        grown[name] = {
            key: value if key in POINTS_IN_TIME else value - before.get(key, 0) for key, value in counters.items()
        }
        if any(value < 0 for value in grown[name].values()):
            raise InvalidRequest(f"{name} has counted less than in the earlier bill: that is of another pool")
    return {name: counters for name, counters in grown.items() if any(counters.values())}
