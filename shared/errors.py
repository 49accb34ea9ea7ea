"""Every error lorapool raises on purpose.

LorapoolError                 .job_id: the job it is about; .fate: what surely became of that submission (Fate)
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
├── QuotaExceeded             an API key has used its quota up (.key .limit_name .limit .used .retry_after_s)
├── UnknownKey                no API key of that name, or a revoked one
├── KeyConflict               that name is another API key's
├── UnknownJob                never existed here
├── ResultExpired             existed, its result's TTL has passed
├── JobLost                   accepted, and the server has no record of it any more: it lost data
├── ResultTimeout             still not terminal after the caller's own timeout (also TimeoutError)
├── JobFailed                 terminal (.error .message .attempts)
├── JobCancelled              terminal
├── JobExpired                terminal: its deadline passed
├── UnknownSchedule           no schedule entry of that name
├── ScheduleConflict          that name is another entry's
├── UnknownFile               no stored file of that id
├── FileInUse                 an open batch reads the file
├── FilesUnavailable          what is stored cannot be read or written here and now
├── UnknownBatch              no batch of that id
├── NoWorker                  nobody alive to do it
├── WorkerIdTaken             another live worker has that name
├── UnsupportedVersion        a stored record has a newer schema than this release reads
├── PoolMismatch              pool and worker disagree on base model, dtype, layout or partitions
├── MalformedEntry            what stands in Redis there is nothing that lorapool writes
├── RedisUnreachable          (also ConnectionError); no answer, or none for now (.code: MISCONF, BUSY, …)
│   └── RedisAuthFailed
├── RedisFull                 maxmemory reached: new work is refused
├── ClientClosed              the client was closed, before the call or during it
├── ForeignClient             the client belongs to another process or event loop (also RuntimeError)
├── CheckpointError           an adapter's content cannot be served, by nobody
├── AdapterUnavailable        an adapter cannot be had here and now; its content may be sound
└── BaseModelError            the base model cannot be loaded or fails its self-check

Messages name the key, the value, what was expected and what to do. Imports nothing of ours.
"""

from __future__ import annotations

import copy
from enum import StrEnum
from typing import Any, Self


class Fate(StrEnum):
    """What surely became of a submission that brought an error.

    ``QUEUED``: it was accepted, and its answer can be asked for by its id. ``NOT_QUEUED``: surely not, and who submits
    it anew runs it once. ``UNKNOWN``: it may be; submitting it again is safe with the same id, and with no other.
    """

    QUEUED = "queued"
    NOT_QUEUED = "not queued"
    UNKNOWN = "unknown"


class LorapoolError(Exception):
    """Root of the tree.

    ``job_id`` is the full id of the job it is about, None if it is about none; ``submit`` takes it again. ``fate`` says
    what surely became of that submission. ``unsure``: what was asked may have been carried out, and its reply lost.
    """

    job_id: str | None = None
    fate: Fate | None = None
    unsure: bool = False
    _text: str | None = None

    def __reduce__(self) -> tuple[Any, ...]:
        """Copies and travels between processes whole, whatever its constructor asks for."""
        return _restored, (type(self), self.args, dict(vars(self)))

    def of_job(self, job_id: str, fate: Fate | None) -> Self:
        """A copy that is about that job, and says so in its text."""
        error = copy.copy(self)
        text = str(self) if self._text is None else self._text  # without what it says of another job
        vars(error).update(job_id=job_id, fate=fate, _text=text)
        says = fate is not Fate.NOT_QUEUED or isinstance(self, _LEAVE_DOUBT)
        error.args = (_told(text, job_id, fate if says else None), *self.args[1:])
        error.__cause__, error.__suppress_context__ = self.__cause__, True
        return error


def _restored(kind: type[LorapoolError], args: tuple[Any, ...], state: dict[str, Any]) -> LorapoolError:
    error = kind.__new__(kind, *args)
    error.args = args
    vars(error).update(state)
    return error


def _told(text: str, job_id: str, fate: Fate | None) -> str:
    bare = job_id.partition(".")[2] or job_id
    if fate is None or bare in text:
        return text
    if fate is Fate.UNKNOWN:
        return f"{text}; whether job {job_id} was queued is not known: submit it again with job_id={bare!r} to be sure"
    return f"{text}; job {job_id} " + ("goes on" if fate is Fate.QUEUED else "was not queued")


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


class QuotaExceeded(LorapoolError):
    """An API key has used up what it may.

    ``limit_name`` is ``jobs_per_minute`` or ``tokens_per_day``; ``limit`` and ``used`` count those, reserved ones with
    them. There is room again after ``retry_after_s``, unless the job alone is more than the limit.
    """

    def __init__(self, message: str, *, key: str, limit_name: str, limit: int, used: int, retry_after_s: float) -> None:
        super().__init__(message)
        self.key, self.limit_name, self.limit, self.used = key, limit_name, limit, used
        self.retry_after_s = retry_after_s


class UnknownKey(LorapoolError, LookupError):
    """The pool has no API key of that name, or it was revoked."""


class KeyConflict(LorapoolError):
    """That name is another API key's."""


class UnknownJob(LorapoolError, LookupError):
    """No job of that id was ever accepted here (or it is long forgotten)."""


class ResultExpired(LorapoolError):
    """The job ended, and its result's time to live has passed."""


class JobLost(LorapoolError):
    """The job was accepted, and the server has no record of it any more, though its time to live has not passed.

    It restarted without its data, was emptied, or lost its last writes. ``on_lost="resubmit"`` submits it again.
    """


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


class UnknownFile(LorapoolError, LookupError):
    """No stored file of that id."""


class FileInUse(LorapoolError):
    """The file cannot be deleted yet: an open batch reads it."""


class FilesUnavailable(LorapoolError):
    """The location of stored files cannot be read or written here and now, or lacks a file that it should hold."""


class UnknownBatch(LorapoolError, LookupError):
    """No batch of that id."""


class NoWorker(LorapoolError):
    """No live worker can do what was asked."""


class WorkerIdTaken(LorapoolError):
    """Another live worker of the pool has that name."""


class UnsupportedVersion(LorapoolError):
    """A stored record has a newer schema version than this release reads."""


class PoolMismatch(LorapoolError):
    """Pool and worker disagree on the base model, dtype policy, layout or partitions."""


class MalformedEntry(LorapoolError):
    """What stands in Redis at that place cannot be read: not written by lorapool, or damaged since."""


class RedisUnreachable(LorapoolError, ConnectionError):
    """The Redis server did not answer; or it refuses for now, and ``code`` is its word for why, such as MISCONF."""

    def __init__(self, *args: object, code: str = "") -> None:
        super().__init__(*args)
        self.code = code

    unsure = True


class RedisAuthFailed(RedisUnreachable):
    """The Redis server refused user or password."""

    unsure = False


class RedisFull(LorapoolError):
    """The Redis server reached maxmemory and refuses new work."""


class ClientClosed(LorapoolError):
    """The client was closed, before the call or during it; jobs that were accepted go on."""


class ForeignClient(LorapoolError, RuntimeError):
    """The client belongs to another process or another event loop: connections cannot be shared with them."""


class CheckpointError(LorapoolError):
    """An adapter checkpoint cannot be served: missing, unsafe, misshapen, foreign or without effect."""


class AdapterUnavailable(LorapoolError):
    """An adapter cannot be had here and now: a mount, a store, a permission, a disk, or this worker's own limits.

    Says nothing of its content: another worker may serve it, or this one later.
    """


class BaseModelError(LorapoolError):
    """The base model cannot be loaded, or fails its self-check."""


# Errors that do not by themselves say that nothing was queued.
_LEAVE_DOUBT = (QueueFull, QuotaExceeded, RedisUnreachable, RedisFull, ClientClosed, ForeignClient)
