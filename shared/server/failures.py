"""Failures: the error of ours that a redis-py error means. Passwords never reach a message. Knows no keys."""

from __future__ import annotations

import re

from redis import exceptions as redis_errors
from redis.asyncio import Redis

from lorapool.shared.errors import LorapoolError, MalformedEntry, RedisAuthFailed, RedisFull, RedisUnreachable
from lorapool.shared.redaction import redact

# What a server says while it is there and cannot do the work: of its disk, its replicas, its role, a script that runs.
_FOR_NOW = (
    "MISCONF", "NOREPLICAS", "BUSY", "LOADING", "MASTERDOWN", "READONLY", "CLUSTERDOWN", "TRYAGAIN", "UNBLOCKED",
    "UNKILLABLE",
)  # fmt: skip
# redis-py takes these words out of the message and says them by a class.
_SAID_BY_CLASS: dict[type[Exception], str] = {
    redis_errors.BusyLoadingError: "LOADING",
    redis_errors.ReadOnlyError: "READONLY",
    redis_errors.MasterDownError: "MASTERDOWN",  # before the class that it is one of
    redis_errors.ClusterDownError: "CLUSTERDOWN",
    redis_errors.TryAgainError: "TRYAGAIN",
}
_IN_PIPELINE = re.compile(r".*of pipeline caused error: (?P<args>\(['\"])?(?P<reply>.*?)(?(args)['\"],\))", re.DOTALL)
_SAYS_CODE = re.compile(rf"(?:^|:\s*)-?(?P<code>{'|'.join(_FOR_NOW)}|OOM)(?=\s|$)")  # a script's error wraps another
_MAX_CHARS = 300  # characters of the server's own words
# How the server says that a command or a script met data of a wrong kind.
_DAMAGE = ("WRONGTYPE", "user_script", "not an integer", "not a valid float", "Error running script")


def translated(error: Exception, redis: Redis | None = None) -> LorapoolError | None:
    """The error of ours that a redis-py error means, or None when it means a mistake of ours."""
    where = _address(redis)
    if isinstance(error, redis_errors.AuthenticationError | redis_errors.AuthorizationError) or _denied(error):
        return RedisAuthFailed(f"Redis{where} refused user or password ({error}); check LORAPOOL_REDIS_URL")
    if isinstance(error, redis_errors.NoPermissionError) or _denied_in_script(error):
        return RedisAuthFailed(f"Redis{where} denies this user a command or key ({error}); check its ACL")
    code = _code(error)
    if isinstance(error, redis_errors.OutOfMemoryError) or code == "OOM":
        return RedisFull(f"Redis{where} reached maxmemory and takes no new work; running work still settles")
    if code:
        return RedisUnreachable(f"Redis{where} refuses commands for now ({_reason(code, error)})", code=code)
    unreachable = (
        redis_errors.ConnectionError,
        redis_errors.TimeoutError,
        redis_errors.WatchError,  # of a connection that ended while arq watched keys; nothing else watches
        OSError,
    )
    if isinstance(error, unreachable):
        return RedisUnreachable(f"Redis{where} does not answer ({redact(str(error)) or type(error).__name__})")
    if isinstance(error, redis_errors.ResponseError) and any(mark in str(error) for mark in _DAMAGE):
        return MalformedEntry(
            f"Redis{where} holds under one of the pool's keys what lorapool does not write there ({error}); delete "
            f"that key, and let `lorapool fsck` put right what hangs on it"
        )
    return None


def _denied(error: Exception) -> bool:
    return isinstance(error, redis_errors.ResponseError) and str(error).startswith(("NOAUTH", "WRONGPASS"))


def _denied_in_script(error: Exception) -> bool:
    """A script met what the user may not do. Redis before 7.2 has other words for it than later ones and Valkey."""
    words = ("ACL failure in script", "The user executing the script can't")
    return isinstance(error, redis_errors.ResponseError) and any(phrase in str(error) for phrase in words)


def _code(error: Exception) -> str:
    """The word by which a server, or a script that met it, refuses for a while; empty for any other error."""
    by_class = next((code for kind, code in _SAID_BY_CLASS.items() if isinstance(error, kind)), "")
    if by_class or not isinstance(error, redis_errors.ResponseError):
        return by_class
    match = _SAYS_CODE.search(_text_of(error))
    return match["code"] if match else ""


def _text_of(error: Exception) -> str:
    """The server's words, without what redis-py puts around them in a pipeline (5.3 quotes them)."""
    text = str(error)
    match = _IN_PIPELINE.fullmatch(text)
    return match["reply"] if match else text


def _reason(code: str, error: Exception) -> str:
    phrase = _text_of(error)[:_MAX_CHARS]
    return phrase if code in phrase else f"{code} {phrase}".rstrip()


def _address(redis: Redis | None) -> str:
    if redis is None:
        return ""
    options = redis.connection_pool.connection_kwargs
    if "path" in options:
        return f" at {options['path']}"
    return f" at {options.get('host', 'localhost')}:{options.get('port', 6379)}"
