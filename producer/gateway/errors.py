"""ApiError: what a request gets instead of its answer, as OpenAI's API writes it; and which of lorapool's it is.

OpenAI's clients repeat what brought 408, 409, 429 or 5xx, unless ``x-should-retry`` says no. So there is never a 409,
what would run a job twice is not to be repeated, and ``retry-after`` is the queue's own estimate, a minute at most.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from lorapool.shared import errors as e

MAX_RETRY_S = 60
NEVER = {"x-should-retry": "false"}
CALLERS_FAULT = frozenset({"InvalidRequest", "PromptTooLong", "TemplateEnded", "PayloadTooLarge"})  # of a failed job
_FIELD = re.compile(r"([a-z_]\w*(?:\.\w+)*)(?: = |: )")


class ApiError(Exception):
    """``status`` of HTTP; ``kind`` and ``code`` are the words that OpenAI's clients know."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        kind: str = "invalid_request_error",
        code: str | None = None,
        param: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status, self.kind, self.code, self.param, self.headers = status, kind, code, param, headers

    def body(self) -> dict[str, Any]:
        """As it is sent, in a response or within a stream."""
        return {"error": {"message": str(self), "type": self.kind, "param": self.param, "code": self.code}}


async def respond(_: Request, error: Exception) -> Response:
    """Starlette's handler of ApiError and of lorapool's own."""
    known = error if isinstance(error, ApiError) else of_error(error)
    return JSONResponse(known.body(), known.status, headers=known.headers)


def of_error(error: BaseException) -> ApiError:
    """What a caller is told of any error."""
    if isinstance(error, ApiError):
        return error
    if isinstance(error, e.QuotaExceeded) and error.limit_name != "jobs_per_minute":
        headers = {**retry_after(error.retry_after_s), **NEVER}  # not before tomorrow
        return ApiError(429, str(error), kind="insufficient_quota", code="insufficient_quota", headers=headers)
    if (wait_s := getattr(error, "retry_after_s", None)) is not None:  # a queue or a quota is full
        return ApiError(
            429, str(error), kind="rate_limit_error", code="rate_limit_exceeded", headers=retry_after(wait_s)
        )
    if isinstance(error, e.JobFailed):
        return _of_failure(error)
    if isinstance(error, e.InvalidRequest):
        return invalid(str(error), code="request_too_large" if isinstance(error, e.PayloadTooLarge) else None)
    for kinds, status, word, code, headers in _TOLD:
        if isinstance(error, kinds):
            return ApiError(status, str(error), kind=word, code=code, headers=headers(error))
    text = str(error) if isinstance(error, e.LorapoolError) else "the gateway failed here; its log says how"
    return ApiError(500, text, kind="server_error", code="internal_error", headers=NEVER)


def invalid(message: str, *, param: str | None = None, code: str | None = None) -> ApiError:
    """400; the message names the field, the value and what was expected, and so the param."""
    if param is None and (named := _FIELD.match(message)):
        param = named[1]
    return ApiError(400, message, param=param, code=code)


def retry_after(wait_s: float) -> dict[str, str]:
    """The headers that say when to come again."""
    return {"retry-after": str(min(MAX_RETRY_S, max(1, math.ceil(wait_s))))}


def _of_failure(error: e.JobFailed) -> ApiError:
    """A job that failed for good: sent again, the same would come of it."""
    if error.error in CALLERS_FAULT:
        code = "context_length_exceeded" if error.error == "PromptTooLong" else error.error
        return ApiError(400, error.message or str(error), code=code, headers=NEVER)
    return ApiError(500, str(error), kind="server_error", code=error.error, headers=NEVER)


def _away(error: BaseException) -> Mapping[str, str]:
    """Whoever sends it again runs it once, unless it may have been queued already."""
    unsure = isinstance(error, e.LorapoolError) and error.fate is e.Fate.UNKNOWN
    return {**retry_after(2), **(NEVER if unsure else {})}


def _never(_: BaseException) -> Mapping[str, str]:
    return NEVER


def _nothing(_: BaseException) -> Mapping[str, str]:
    return {}


_NAMES = (e.UnknownAdapter, e.AdapterNotReady, e.AdapterRefused, e.AdapterClosed)
_INVALID, _SERVER = "invalid_request_error", "server_error"
_TOLD: tuple[tuple[Any, int, str, str, Any], ...] = (
    (_NAMES, 404, _INVALID, "model_not_found", _nothing),
    (e.UnknownKey, 401, _INVALID, "invalid_api_key", lambda _: {"www-authenticate": "Bearer"}),
    (e.JobConflict, 422, _INVALID, "idempotency_key_reused", _nothing),
    ((e.UnknownJob, e.ResultExpired), 404, _INVALID, "not_found", _nothing),
    (e.JobExpired, 408, "timeout_error", "deadline_passed", _never),
    (e.JobCancelled, 410, _INVALID, "cancelled", _never),
    (e.RedisAuthFailed, 503, _SERVER, "queue_refuses", _never),
    ((e.RedisUnreachable, e.ClientClosed, e.ForeignClient), 503, _SERVER, "queue_unreachable", _away),
    (e.RedisFull, 503, _SERVER, "queue_full", lambda _: retry_after(5)),
    (e.NoWorker, 503, _SERVER, "no_worker", lambda _: retry_after(5)),
    (e.JobLost, 503, _SERVER, "job_lost", _never),
    (e.ResultTimeout, 504, "timeout_error", "timeout", _never),
)
