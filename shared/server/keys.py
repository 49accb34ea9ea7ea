"""Every Redis key of lorapool, as functions of pool, partition and name.

All keys of one partition share the hash tag ``{<pool>/<partition>}`` and so one Cluster slot, so that an operation is
one script; the catalog's keys share ``{<pool>}``. Also the form of job ids. Knows no Redis commands.
"""

from __future__ import annotations

import re
import secrets
import time
from dataclasses import dataclass
from zlib import crc32

from lorapool.shared.errors import InvalidRequest
from lorapool.shared.job import BASE_REF, Priority, check_name

# The streams that an adapter may have; at equal turns the first goes first (scripts/lib/lanes.lua).
OVER_QUOTA = "_over_quota"
LANES = (*(f"{priority}{quota}" for priority in ("high", "normal", "low") for quota in ("", OVER_QUOTA)), "retry")

_PARTITIONED = re.compile(r"[0-9]{1,9}\.")
_ISSUED = re.compile(r"j([0-9a-f]{11})-[0-9a-f]{16}")


@dataclass(frozen=True, slots=True)
class Keys:
    """The keys of one partition. ``tag`` overrides ``<pool>/<partition>`` where the pool's config says so."""

    pool: str
    partition: int = 0
    tag: str | None = None

    @property
    def prefix(self) -> str:
        """What every key of the partition begins with; scripts get it as KEYS[1] and append."""
        return f"lp:{{{self.tag or f'{self.pool}/{self.partition}'}}}:"

    def adapter(self, ref: str) -> str:
        return f"{self.prefix}adapter:{ref}"

    def stream(self, ref: str, lane: str = Priority.NORMAL) -> str:
        """Waiting jobs of one adapter; ``lane`` is one of LANES."""
        suffix = "" if lane == Priority.NORMAL else f":{lane}"
        return f"{self.prefix}stream:{ref}{suffix}"

    def job(self, job_id: str) -> str:
        return f"{self.prefix}job:{bare_id(job_id)}"

    def payload(self, job_id: str) -> str:
        return f"{self.prefix}payload:{bare_id(job_id)}"

    def tokens(self, job_id: str) -> str:
        return f"{self.prefix}tokens:{bare_id(job_id)}"

    def window(self, ref: str) -> str:
        return f"{self.prefix}window:{ref}"

    def stats(self, ref: str) -> str:
        return f"{self.prefix}stats:{ref}"

    def agent(self, agent: str) -> str:
        return f"{self.prefix}agent:{agent}"

    def inbox(self, client: str) -> str:
        return f"{self.prefix}inbox:{client}"

    def unread(self, client: str) -> str:
        return f"{self.prefix}unread:{client}"

    def ctl(self, worker: str) -> str:
        return f"{self.prefix}ctl:{worker}"

    def claim(self, worker: str) -> str:
        return f"{self.prefix}claim:{worker}"

    def wake(self, worker: str | None = None) -> str:
        return f"{self.prefix}wake:{worker}" if worker else f"{self.prefix}wake"

    def one(self, name: str) -> str:
        """A key that the partition has once: ready, served, waiting, running, leases, delayed, deadlines, …"""
        return f"{self.prefix}{name}"

    def full_id(self, bare: str) -> str:
        return f"{self.partition}.{bare}"


@dataclass(frozen=True, slots=True)
class PoolKeys:
    """The keys that a pool has once: config, catalog, workers."""

    pool: str

    @property
    def prefix(self) -> str:
        return f"lp:{{{self.pool}}}:"

    @property
    def config(self) -> str:
        return f"{self.prefix}config"

    @property
    def adapters(self) -> str:
        return f"{self.prefix}adapters"

    def adapter(self, ref: str) -> str:
        return f"{self.prefix}adapter:{ref}"

    @property
    def active(self) -> str:
        return f"{self.prefix}active"

    @property
    def pending(self) -> str:
        return f"{self.prefix}pending"

    @property
    def aliases(self) -> str:
        return f"{self.prefix}aliases"

    def moves(self, alias: str) -> str:
        return f"{self.prefix}moves:{alias}"

    @property
    def usage(self) -> str:
        return f"{self.prefix}usage"

    @property
    def workers(self) -> str:
        return f"{self.prefix}workers"

    @property
    def serving(self) -> str:
        return f"{self.prefix}serving"

    @property
    def members(self) -> str:
        return f"{self.prefix}members"

    def worker(self, worker: str) -> str:
        return f"{self.prefix}worker:{worker}"

    @property
    def schedules(self) -> str:
        return f"{self.prefix}schedules"

    def schedule(self, name: str) -> str:
        return f"{self.prefix}schedule:{name}"

    @property
    def chores(self) -> str:
        return f"{self.prefix}chores"

    @property
    def dead(self) -> str:
        return f"{self.prefix}dead"

    @property
    def seen(self) -> str:
        return f"{self.prefix}seen"

    @property
    def maintenance(self) -> str:
        return f"{self.prefix}maintenance"


def check_job_id(job_id: str) -> str:
    """A caller's own job id: a valid name that cannot be mistaken for a full id."""
    check_name("job id", job_id)
    if _PARTITIONED.match(job_id):
        raise InvalidRequest(f"job id {job_id!r} begins with digits and a dot, which marks a full id; choose another")
    return job_id


def new_job_id() -> str:
    """A fresh job id that carries its time, so that an expired result can be told from an unknown job."""
    return f"j{round(time.time() * 1000):011x}-{secrets.token_hex(8)}"


def issued_ms(job_id: str) -> int | None:
    """When ``new_job_id`` made that id (client's clock), or None for an id of another form."""
    match = _ISSUED.fullmatch(bare_id(job_id))
    return int(match[1], 16) if match else None


def bare_id(job_id: str) -> str:
    """``<p>.<id>`` or ``<id>`` → ``<id>``."""
    match = _PARTITIONED.match(job_id)
    return job_id[match.end() :] if match else job_id


def split_id(job_id: str) -> tuple[int | None, str]:
    """``<p>.<id>`` → (p, id); a bare id has no partition."""
    match = _PARTITIONED.match(job_id)
    return (int(match[0][:-1]), job_id[match.end() :]) if match else (None, job_id)


def partition_of(ref: str, job_id: str, partitions: int) -> int:
    """The partition of a job: by adapter id, or for base-model jobs by job id."""
    name = bare_id(job_id) if ref == BASE_REF else ref.partition("@")[0]
    return crc32(name.encode()) % partitions
