"""Every error lorapool raises on purpose.

LorapoolError
├── InvalidRequest            the caller's arguments are wrong; nothing was sent
│   └── PayloadTooLarge
├── UnknownAdapter            no adapter, alias or version of that name
├── AdapterNotReady           registered, not yet validated by a worker
├── AdapterRefused            a worker validated it and said no (.reason)
├── AdapterConflict           that id@version exists with another content digest
├── AdapterClosed             closed or removed: takes no new jobs
├── AdapterInUse              cannot be removed yet (.aliases .waiting .running)
├── JobConflict               the job id exists with another request
├── QueueFull                 backpressure (.scope .depth .limit .retry_after_s)
├── UnknownJob                never existed here
├── ResultExpired             existed, its result's TTL has passed
├── ResultTimeout             still not terminal after the caller's own timeout (also TimeoutError)
├── JobFailed                 terminal (.error .message .attempts)
├── JobCancelled              terminal
├── JobExpired                terminal: its deadline passed
├── UnknownSchedule           no schedule entry of that name
├── ScheduleConflict          that name is another entry's
├── NoWorker                  nobody alive to do it
├── UnsupportedVersion        a stored record has a newer schema than this release reads
├── PoolMismatch              pool and worker disagree on base model, dtype, layout or partitions
├── RedisUnreachable          (also ConnectionError); no answer, or none for now (.code: MISCONF, BUSY, …)
│   └── RedisAuthFailed
├── RedisFull                 maxmemory reached: new work is refused
├── CheckpointError           an adapter checkpoint cannot be served (worker side)
├── BaseModelError            the base model cannot be loaded or fails its self-check
└── LeaseLost                 a worker acted on a job it no longer owns

Messages name the key, the value, what was expected and what to do. Imports nothing of ours.
"""

from __future__ import annotations


class LorapoolError(Exception):
    """Root of the tree."""


class InvalidRequest(LorapoolError, ValueError):
    """The caller's arguments are wrong; nothing was sent."""


class PayloadTooLarge(InvalidRequest):
    """The encoded request exceeds the payload limit."""


class UnknownAdapter(LorapoolError, LookupError):
    """No adapter, alias or version of that name."""


class AdapterNotReady(LorapoolError):
    """Registered, but no worker has validated it yet."""


class AdapterRefused(LorapoolError):
    """A worker validated the adapter and refused it."""

    def __init__(self, message: str, *, reason: str = "") -> None:
        super().__init__(message)
        self.reason = reason


class AdapterConflict(LorapoolError):
    """That id@version is already registered with another content digest."""


class AdapterClosed(LorapoolError):
    """The adapter is closed or removed and takes no new jobs."""


class AdapterInUse(LorapoolError):
    """The adapter cannot be removed: aliases point at it, or jobs of it have not ended."""

    def __init__(self, message: str, *, aliases: tuple[str, ...] = (), waiting: int = 0, running: int = 0) -> None:
        super().__init__(message)
        self.aliases, self.waiting, self.running = aliases, waiting, running


class JobConflict(LorapoolError):
    """The job id exists with another request."""


class QueueFull(LorapoolError):
    """Backpressure: a limit on waiting jobs is reached.

    ``scope`` is ``adapter``, ``agent`` or ``pool``; ``depth`` and ``limit`` count jobs.
    """

    def __init__(self, message: str, *, scope: str, depth: int, limit: int, retry_after_s: float) -> None:
        super().__init__(message)
        self.scope, self.depth, self.limit, self.retry_after_s = scope, depth, limit, retry_after_s


class UnknownJob(LorapoolError, LookupError):
    """No job of that id was ever accepted here (or it is long forgotten)."""


class ResultExpired(LorapoolError):
    """The job ended, and its result's time to live has passed."""


class ResultTimeout(LorapoolError, TimeoutError):
    """The job was not terminal within the caller's own timeout; it goes on."""


class JobFailed(LorapoolError):
    """The job failed for good. ``error`` is a stable name, ``message`` says what and why."""

    def __init__(self, text: str, *, job_id: str, error: str, message: str, attempts: int) -> None:
        super().__init__(text)
        self.job_id, self.error, self.message, self.attempts = job_id, error, message, attempts


class JobCancelled(LorapoolError):
    """The job was cancelled."""


class JobExpired(LorapoolError):
    """The job's deadline passed."""


class UnknownSchedule(LorapoolError, LookupError):
    """No schedule entry of that name."""


class ScheduleConflict(LorapoolError):
    """A schedule entry of that name exists, and says something else."""


class NoWorker(LorapoolError):
    """No live worker can do what was asked."""


class UnsupportedVersion(LorapoolError):
    """A stored record has a newer schema version than this release reads."""


class PoolMismatch(LorapoolError):
    """Pool and worker disagree on the base model, dtype policy, layout or partitions."""


class RedisUnreachable(LorapoolError, ConnectionError):
    """The Redis server did not answer; or it refuses for now, and ``code`` is its word for why, such as MISCONF."""

    def __init__(self, *args: object, code: str = "") -> None:
        super().__init__(*args)
        self.code = code


class RedisAuthFailed(RedisUnreachable):
    """The Redis server refused user or password."""


class RedisFull(LorapoolError):
    """The Redis server reached maxmemory and refuses new work."""


class CheckpointError(LorapoolError):
    """An adapter checkpoint cannot be served: missing, unsafe, misshapen, foreign or without effect."""


class BaseModelError(LorapoolError):
    """The base model cannot be loaded, or fails its self-check."""


class LeaseLost(LorapoolError):
    """A worker acted on a job whose lease it no longer holds."""
