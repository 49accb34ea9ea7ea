"""What the server did: its CPU time, commands, bytes and memory between two moments, by INFO."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from redis import Redis

SCRIPT_COMMANDS = ("cmdstat_evalsha", "cmdstat_eval", "cmdstat_fcall")


@dataclass(frozen=True)
class Work:
    """Sums over one stretch of work. ``commands`` counts those inside scripts too, as INFO does; ``reads`` counts the
    server's socket reads, about one a round trip."""

    cpu_us: float
    commands: int
    scripts: int
    reads: int
    bytes_in: int
    bytes_out: int
    memory_bytes: int

    def per_job(self, jobs: int) -> dict[str, float]:
        """Each figure divided by ``jobs``."""
        return {f"{name}_job": round(value / jobs, 3) for name, value in vars(self).items()}


class Meter:
    """Reads INFO on a connection of its own: ``start``, then ``read`` as often as wanted."""

    def __init__(self, url: str) -> None:
        self.redis = Redis.from_url(url)
        self._before: dict[str, Any] = {}

    def start(self) -> None:
        """Count from here."""
        self.redis.config_resetstat()
        self._before = self.redis.info()

    def read(self) -> Work:
        """What was done since ``start``."""
        now, calls = self.redis.info(), self.redis.info("commandstats")

        def grown(name: str) -> Any:
            return now[name] - self._before[name]

        return Work(
            cpu_us=(grown("used_cpu_user") + grown("used_cpu_sys")) * 1e6,
            commands=sum(int(row["calls"]) for row in calls.values()),
            scripts=sum(int(calls[name]["calls"]) for name in SCRIPT_COMMANDS if name in calls),
            reads=now["total_reads_processed"],
            bytes_in=now["total_net_input_bytes"],
            bytes_out=now["total_net_output_bytes"],
            memory_bytes=grown("used_memory"),
        )

    def script_us(self) -> float:
        """Mean server time of one script call since ``start``, in microseconds."""
        row: dict[str, Any] = self.redis.info("commandstats")["cmdstat_evalsha"]
        return float(row["usec_per_call"])

    def close(self) -> None:
        self.redis.close()
