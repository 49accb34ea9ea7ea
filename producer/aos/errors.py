"""What the AOS names raise beside the errors of lorapool.shared.errors, each also the built-in that AOS raised.

Knows nothing but the exception tree.
"""

from __future__ import annotations

from lorapool.shared.errors import JobFailed, LorapoolError, UnknownAdapter


class NotRunning(LorapoolError, RuntimeError):
    """The server is not started, is stopping, or has no worker: nothing was sent."""


class NoRoom(LorapoolError, TimeoutError):
    """The request's time passed before there was room for it; nothing was queued."""


class UnknownAdapterId(UnknownAdapter, ValueError):
    """No adapter of that id, or none for that role."""


class RequestRefused(LorapoolError):
    """A gateway answered with an error. ``status`` is HTTP's."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class IgnoredSetting(UserWarning):
    """A setting that AOS offered has no effect here; the message says why and what has one."""


def error_name(error: BaseException) -> str:
    """The stable name of a failure: a worker's own word for it, else the error's class as lorapool calls it."""
    if isinstance(error, JobFailed):
        return error.error
    return UnknownAdapter.__name__ if isinstance(error, UnknownAdapter) else type(error).__name__
