"""Settings: where the Redis server is, how a connection to it behaves, and what its failures are called here.

Reads the LORAPOOL_* environment. Every option that redis-py changed its mind about is set explicitly. Passwords
never reach a message.
"""

from __future__ import annotations

import os
import re
import socket
from typing import Annotated, Any

from hiredis import pack_command
from pydantic import BaseModel, ConfigDict, Field, SecretStr
from redis import exceptions as redis_errors
from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from lorapool.shared.errors import LorapoolError, MalformedEntry, RedisAuthFailed, RedisFull, RedisUnreachable
from lorapool.shared.job import Name
from lorapool.shared.redaction import redact

_SECRET_ANYWHERE = re.compile(r":[^:@\s]*@")  # also in what is no URL yet, for a slip of the keys

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
_IN_PIPELINE = re.compile(r".*of pipeline caused error: (?P<args>\(['\"])?(?P<said>.*?)(?(args)['\"],\))", re.DOTALL)
_SAYS_CODE = re.compile(rf"(?:^|:\s*)-?(?P<code>{'|'.join(_FOR_NOW)}|OOM)(?=\s|$)")  # a script's error wraps another
_MOST_SAID = 300  # characters of the server's own words
# How the server says that a command or a script met data of a wrong kind.
_DAMAGE = ("WRONGTYPE", "user_script", "not an integer", "not a valid float", "Error running script")

READ_MARGIN_S = 2.0  # a blocking read gives up this much before its socket does


class RedisSettings(BaseModel):
    """The server and the pool; each field is also ``LORAPOOL_<FIELD>`` in the environment."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    redis_url: SecretStr = SecretStr("redis://localhost:6379/0")
    pool: Name = "default"
    socket_timeout_s: Annotated[float, Field(gt=READ_MARGIN_S)] = (
        8.0  # with the third of a lease before it, less than a lease
    )
    connect_timeout_s: Annotated[float, Field(gt=0)] = 5.0
    health_check_s: Annotated[int, Field(ge=0)] = 15
    max_connections: Annotated[int, Field(ge=2)] = 32

    @property
    def redacted_url(self) -> str:
        return _SECRET_ANYWHERE.sub(":***@", redact(self.redis_url.get_secret_value()))


def redis_settings(redis_url: str | None = None, pool: str | None = None) -> RedisSettings:
    """Settings from the environment, with what the caller gave laid over them."""
    given = {"redis_url": redis_url, "pool": pool}
    found = {name.upper(): value for name, value in os.environ.items()}
    said = {name: found.get(f"LORAPOOL_{name.upper()}") for name in RedisSettings.model_fields}
    laid_over = said | {name: value for name, value in given.items() if value is not None}
    return RedisSettings.model_validate({name: value for name, value in laid_over.items() if value is not None})


def connect(settings: RedisSettings) -> Redis:
    """A client of the server; it connects at first use. Replies are bytes.

    redis-py retries nothing: it would also retry a wrong password, and differently in each release. Server does.
    Above ``max_connections`` commands at a time, the next ones wait their turn.
    """
    url = settings.redis_url.get_secret_value()
    alive = {} if url.startswith("unix:") else {"socket_keepalive": True, "socket_keepalive_options": _keepalive()}
    pool = BlockingConnectionPool.from_url(
        url,
        socket_timeout=settings.socket_timeout_s,
        socket_connect_timeout=settings.connect_timeout_s,
        **alive,
        health_check_interval=settings.health_check_s,
        retry=Retry(NoBackoff(), 0),
        decode_responses=False,
        max_connections=settings.max_connections,
        timeout=None,  # a command waits for a free connection as long as those before it take
    )
    pool.connection_class = _packing(pool.connection_class)
    return Redis.from_pool(pool)


class _PackedInC:
    """A connection whose commands hiredis packs; redis-py lets it do that in the blocking client only."""

    def pack_command(self, *command: str | bytes | float) -> list[bytes]:
        name, *arguments = command
        words = name.encode().split() if isinstance(name, str) else [name]
        packed: bytes = pack_command((*words, *arguments))
        return [packed]


def _packing(kind: Any) -> Any:
    """That class of connections, faster: packing in Python was a fifth of a worker's time a job."""
    return type(f"Packed{kind.__name__}", (_PackedInC, kind), {})


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
    return isinstance(error, redis_errors.ResponseError) and any(said in str(error) for said in words)


def _code(error: Exception) -> str:
    """The word by which a server, or a script that met it, refuses for a while; empty for any other error."""
    by_class = next((code for kind, code in _SAID_BY_CLASS.items() if isinstance(error, kind)), "")
    if by_class or not isinstance(error, redis_errors.ResponseError):
        return by_class
    found = _SAYS_CODE.search(_said(error))
    return found["code"] if found else ""


def _said(error: Exception) -> str:
    """The server's words, without what redis-py puts around them in a pipeline (5.3 quotes them)."""
    text = str(error)
    found = _IN_PIPELINE.fullmatch(text)
    return found["said"] if found else text


def _reason(code: str, error: Exception) -> str:
    said = _said(error)[:_MOST_SAID]
    return said if code in said else f"{code} {said}".rstrip()


def _address(redis: Redis | None) -> str:
    if redis is None:
        return ""
    options = redis.connection_pool.connection_kwargs
    if "path" in options:
        return f" at {options['path']}"
    return f" at {options.get('host', 'localhost')}:{options.get('port', 6379)}"


def _keepalive() -> dict[int, int]:
    """Notice a dead peer within about half a minute, where the system lets us say so."""
    wanted = {"TCP_KEEPIDLE": 15, "TCP_KEEPINTVL": 5, "TCP_KEEPCNT": 3}
    return {getattr(socket, name): value for name, value in wanted.items() if hasattr(socket, name)}
