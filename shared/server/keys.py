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
LANES = (*(f"{priority}{quota}" for priority in Priority for quota in ("", OVER_QUOTA)), "retry")

# What a partition has once: type and meaning, as the docstrings of Keys and PoolKeys have them for the others.
ONCE = {
    "ready": "zset: adapter versions that jobs can be claimed of, by since when the next one could have been.",
    "served": "zset: adapter versions with jobs waiting or running, by tokens served, divided by their weight.",
    "waiting": "hash: adapter version → jobs waiting; `*` is the sum.",
    "running": "hash: adapter version → jobs running.",
    "held": "hash: worker → jobs that it runs.",
    "leases": "zset: jobs that run, by until when their worker may be silent.",
    "delayed": "zset: jobs that may not start yet, by when they may.",
    "deadlines": "zset: jobs with a deadline, by when they expire.",
    "suspects": "zset: jobs whose worker vanished with them, by when; they run apart from all others.",
    "dead": "stream: dead letters: job, adapter, agent, reason, attempts. Their requests are kept as long.",
    "last_worker": "hash: adapter version → the workers that claimed its jobs last; they are woken first.",
    "refused": "hash: requests refused before they became jobs, by the error's name, of clients that count them.",
    "malformed": "hash: what scripts stepped over because lorapool does not write it, by kind; kept for a week.",
    "reaper": "string: when leases were last looked after, so that an outage can be told from dead workers.",
    "here": "zset: workers that came by lately, by when.",
    "apart": "zset: workers that run suspects and nothing else, by until when they keep that place.",
    "keys": "zset: names of API keys, by when they were added; where there is one, the gateway asks for a key.",
    "secrets": "hash: sha256 of an API key's secret → its name; gone when it is revoked.",
    "audit": "stream: who did what to the pool: keys added, acts in consoles and on the command line; some 10,000.",
    "rested": "string: when the only worker last ended a suspect, so that others' work comes first.",
}
# What only scripts name, a key for each worker, client or alias.
OF_SCRIPTS = {
    "idle:<worker>": "string: set while the worker waits for work, so that its marker is armed before the shared one.",
    "alone:<worker>": "string: ids of the suspects that the worker runs.",
    "reaped:<worker>": "string: when its jobs were first taken back, so that what was lost together runs together.",
    "report:<reporter>": "string: the last report of loads or refusals that was counted, so that each counts once.",
    "before:<alias>": "list: where an alias pointed before, for a rollback.",
}

_PARTITIONED = re.compile(r"[0-9]{1,9}\.")
_ISSUED = re.compile(r"j([0-9a-f]{11})-[0-9a-f]{16}")


@dataclass(frozen=True, slots=True)
class Keys:
    """The keys of one partition."""

    pool: str
    partition: int = 0

    @property
    def prefix(self) -> str:
        """What every key of the partition begins with; scripts get it as KEYS[1] and append."""
        return f"lp:{{{self.pool}/{self.partition}}}:"

    def adapter(self, ref: str) -> str:
        """hash: what enqueue and claim need to know of an adapter version: digest, state, limits, weight."""
        return f"{self.prefix}adapter:{ref}"

    def stream(self, ref: str, lane: str = Priority.NORMAL) -> str:
        """stream: the jobs that wait for one adapter in one lane; `normal` has no suffix. Deleted when empty."""
        suffix = "" if lane == Priority.NORMAL else f":{lane}"
        return f"{self.prefix}stream:{ref}{suffix}"

    def job(self, job_id: str) -> str:
        """hash: a job in plain fields: state, ref, agent, attempts, lease, worker, times; once it ended, the answer."""
        return f"{self.prefix}job:{bare_id(job_id)}"

    def payload(self, job_id: str) -> str:
        """string: the request as it was submitted, in msgpack; gone when the job has ended, kept for a dead letter."""
        return f"{self.prefix}payload:{bare_id(job_id)}"

    def tokens(self, job_id: str) -> str:
        """stream: the text of a streamed job as it came, with attempt and offset."""
        return f"{self.prefix}tokens:{bare_id(job_id)}"

    def response(self, job_id: str) -> str:
        """string: what a job that is a stored response keeps beside: the request's echo and its input, in JSON."""
        return f"{self.prefix}response:{bare_id(job_id)}"

    def window(self, ref: str) -> str:
        """hash: how many jobs each agent has waiting for the adapter."""
        return f"{self.prefix}window:{ref}"

    def stats(self, ref: str) -> str:
        """hash: the counters of an adapter version, monotone."""
        return f"{self.prefix}stats:{ref}"

    def agent(self, agent: str) -> str:
        """hash: the counters of one agent over all adapters; kept for 30 days after its last job."""
        return f"{self.prefix}agent:{agent}"

    def key(self, key: str) -> str:
        """hash: an API key: agent, adapters, role, quotas, sha256 of its secret; kept for 30 days once revoked."""
        return f"{self.prefix}key:{key}"

    def quota(self, key: str) -> str:
        """hash: what an API key has used: jobs since `minute_ms`, tokens since `day_ms`, reserved ones with them."""
        return f"{self.prefix}quota:{key}"

    def inbox(self, client: str) -> str:
        """stream: notices that a client's jobs have ended, a short answer with them; bounded, and kept for an hour."""
        return f"{self.prefix}inbox:{client}"

    def unread(self, client: str) -> str:
        """string: bytes written to the client's inbox since it last read it."""
        return f"{self.prefix}unread:{client}"

    def ctl(self, worker: str) -> str:
        """stream: what a worker is asked to do: cancel a job it runs, bring an adapter closer."""
        return f"{self.prefix}ctl:{worker}"

    def claim(self, worker: str) -> str:
        """string: lease and job ids of the last claim, so that it can be repeated after a lost reply."""
        return f"{self.prefix}claim:{worker}"

    def wake(self, worker: str | None = None) -> str:
        """zset: a marker that wakes that worker; `wake` alone wakes any idle one. A hint, never the truth."""
        return f"{self.prefix}wake:{worker}" if worker else f"{self.prefix}wake"

    def one(self, name: str) -> str:
        """A key that the partition has once, of ONCE."""
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
        """hash: what all workers must agree on: base model, its digest, dtype policy, layout, partitions."""
        return f"{self.prefix}config"

    @property
    def adapters(self) -> str:
        """zset: all adapter versions that were ever registered, by the time they were."""
        return f"{self.prefix}adapters"

    def adapter(self, ref: str) -> str:
        """hash: the record of an adapter version: uri, digest, rank, status, reason, and how it is judged."""
        return f"{self.prefix}adapter:{ref}"

    @property
    def active(self) -> str:
        """hash: adapter id → the version that the bare id means."""
        return f"{self.prefix}active"

    @property
    def pending(self) -> str:
        """set: versions that wait for the verdict of a worker."""
        return f"{self.prefix}pending"

    @property
    def aliases(self) -> str:
        """hash: alias → the ref that it points at."""
        return f"{self.prefix}aliases"

    @property
    def canaries(self) -> str:
        """hash: alias → the percentage of its jobs that go to another version than it points at, and which."""
        return f"{self.prefix}canaries"

    def moves(self, alias: str) -> str:
        """list: how an alias came to point where it does, latest first."""
        return f"{self.prefix}moves:{alias}"

    @property
    def usage(self) -> str:
        """hash: what all workers there ever were did together: time up and busy, steps, tokens."""
        return f"{self.prefix}usage"

    @property
    def history(self) -> str:
        """stream: the pool's totals of each minute of the last day, as whoever came first in it wrote them down."""
        return f"{self.prefix}history"

    @property
    def workers(self) -> str:
        """zset: names of live workers, by when each vanishes without another heartbeat."""
        return f"{self.prefix}workers"

    @property
    def serving(self) -> str:
        """set: names of the live workers that take jobs."""
        return f"{self.prefix}serving"

    @property
    def members(self) -> str:
        """string: a mark that changes when a worker begins or ceases to take jobs."""
        return f"{self.prefix}members"

    def worker(self, worker: str) -> str:
        """hash: a worker's last heartbeat: state, device, free rows, resident adapters, counters; it expires soon."""
        return f"{self.prefix}worker:{worker}"

    @property
    def schedules(self) -> str:
        """zset: names of schedule entries, by their next run."""
        return f"{self.prefix}schedules"

    def schedule(self, name: str) -> str:
        """hash: one schedule entry: when, what, its last run."""
        return f"{self.prefix}schedule:{name}"

    @property
    def operators(self) -> str:
        """set: sha256 of operators' secrets: here, where agents with a Redis user may not write."""
        return f"{self.prefix}operators"

    def session(self, digest: str) -> str:
        """string: the key that a reader of the console signed in with, by the hash of the session's token."""
        return f"{self.prefix}session:{digest}"

    @property
    def chores(self) -> str:
        """hash: what maintenance did last, as `<chore>.<field>`."""
        return f"{self.prefix}chores"

    @property
    def dead(self) -> str:
        """hash: dead letters by reason and adapter, as of the last count."""
        return f"{self.prefix}dead"

    @property
    def seen(self) -> str:
        """zset: workers that lived once, so that what dead ones left can be dropped."""
        return f"{self.prefix}seen"

    @property
    def maintenance(self) -> str:
        """zset: the maintenance workers' own queue, which arq keeps."""
        return f"{self.prefix}maintenance"

    @property
    def files(self) -> str:
        """zset: ids of stored files, by when they came."""
        return f"{self.prefix}files"

    def files_of(self, agent: str) -> str:
        """zset: one agent's files, by when they came."""
        return f"{self.prefix}files_of:{agent}"

    @property
    def files_bytes(self) -> str:
        """hash: agent → bytes of its stored files."""
        return f"{self.prefix}files_bytes"

    @property
    def files_due(self) -> str:
        """zset: ids of stored files, by when they are removed."""
        return f"{self.prefix}files_due"

    def file(self, file_id: str) -> str:
        """hash: one stored file: whose, what for, where its content lies, how large."""
        return f"{self.prefix}file:{file_id}"

    def file_users(self, file_id: str) -> str:
        """set: the batches that are fed from a file."""
        return f"{self.prefix}file_users:{file_id}"

    @property
    def batches(self) -> str:
        """zset: ids of batches, by when they were made."""
        return f"{self.prefix}batches"

    def batches_of(self, agent: str) -> str:
        """zset: one agent's batches, by when they were made."""
        return f"{self.prefix}batches_of:{agent}"

    @property
    def batches_open(self) -> str:
        """zset: batches that have not ended, or whose leavings are not cleared away, by when they were made."""
        return f"{self.prefix}batches_open"

    def batch(self, batch_id: str) -> str:
        """hash: one batch: status, counts, times, files, and who holds it; kept for 30 days after its end."""
        return f"{self.prefix}batch:{batch_id}"

    def batch_parts(self, batch_id: str) -> str:
        """list: the parts of an open batch's answers, in order: each names two files."""
        return f"{self.prefix}batch_parts:{batch_id}"

    def batch_answered(self, batch_id: str) -> str:
        """string: a bit for each line of an open batch, set once its answer is in a part."""
        return f"{self.prefix}batch_answered:{batch_id}"

    @property
    def feeders(self) -> str:
        """zset: gateways that feed batches, by when each is taken for dead."""
        return f"{self.prefix}feeders"


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
