"""Access: who a request is from, by the API key that it brings: in ``Authorization: Bearer``, ``x-api-key`` or
``api-key``, and never in its address, which ends up in logs.

Without keys a pool is open to this machine alone, under its own name: a web page elsewhere, or a name that leads here,
gets nothing. The console has its own door, where an operator signs in. Knows no path but these, and no adapter.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import lru_cache
from ipaddress import ip_address
from typing import Generic, TypeVar
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from lorapool.producer.gateway.caller import ANYONE, Caller
from lorapool.producer.gateway.errors import ApiError
from lorapool.shared.access.key import Key, digest_of
from lorapool.shared.access.key_book import KeyBook
from lorapool.shared.errors import RedisUnreachable

BELIEVED_S = 1.0  # what was looked up
MAX_KNOWN, MAX_WRONG = 4096, 1024  # secrets that are remembered, as their hashes
OPEN = "/health"
CONSOLE = "/console"
T = TypeVar("T")


class Access:
    """ASGI middleware: handlers find the caller by ``caller_of``. What may not be asked gets an ApiError (401, 403)."""

    def __init__(self, app: ASGIApp, keys: KeyBook) -> None:
        self._app, self._keys = app, KnownKeys(keys)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and not _has_no_lock(scope["path"]):
            scope.setdefault("state", {})["caller"] = await self._caller(scope)
        await self._app(scope, receive, send)

    async def _caller(self, scope: Scope) -> Caller:
        headers = Headers(scope=scope)
        secret = _secret(headers)
        key = await self._keys.find(secret) if secret else None
        if key is not None:
            return Caller(key.name, key.agent, key.adapters, operator=key.role == "operator")
        if await self._keys.any():
            raise _unknown(secret)
        _check_here(scope, headers)
        return ANYONE


class KnownKeys:
    """What a key book said less than a second ago; while its server is away, what it said last."""

    def __init__(self, keys: KeyBook, now: Callable[[], float] = time.monotonic) -> None:
        self._keys = keys
        self._good, self._wrong = _Memory[Key | None](MAX_KNOWN, now), _Memory[None](MAX_WRONG, now)
        self._any = _Memory[bool](1, now)

    async def find(self, secret: str) -> Key | None:
        """The key of that secret. Raises RedisUnreachable for one never seen."""
        digest = digest_of(secret)
        if digest is None or self._wrong.has(digest):
            return None
        key = await self._good.at(digest, lambda: self._keys.find(secret))
        if key is None:
            self._good.drop(digest)
            self._wrong.keep(digest, None)
        return key

    async def any(self) -> bool:
        """Whether the pool has keys, or had."""
        return await self._any.at("", self._keys.any)


class _Memory(Generic[T]):
    """A bounded number of answers, each believed for a second; the oldest makes room."""

    def __init__(self, most: int, now: Callable[[], float]) -> None:
        self._most, self._now = most, now
        self._kept: dict[str, tuple[float, T]] = {}

    def has(self, name: str) -> bool:
        return name in self._kept and self._now() < self._kept[name][0]

    async def at(self, name: str, ask: Callable[[], Awaitable[T]]) -> T:
        """What is remembered, or else asked for; the old answer where there is nobody to ask."""
        if not self.has(name):
            try:
                self.keep(name, await ask())
            except RedisUnreachable:
                if name not in self._kept:
                    raise
        return self._kept[name][1]

    def keep(self, name: str, answer: T) -> None:
        self.drop(name)
        self._kept[name] = self._now() + BELIEVED_S, answer
        if len(self._kept) > self._most:
            del self._kept[next(iter(self._kept))]

    def drop(self, name: str) -> None:
        self._kept.pop(name, None)


def _has_no_lock(path: str) -> bool:
    return path in {OPEN, CONSOLE} or path.startswith(f"{CONSOLE}/")


def _secret(headers: Headers) -> str:
    """The secret that a request brings, empty for none; the first place that has one counts."""
    scheme, _, token = headers.get("authorization", "").partition(" ")
    if scheme.casefold() == "bearer" and token.strip():
        return token.strip()
    return headers.get("x-api-key") or headers.get("api-key") or ""


def _unknown(secret: str) -> ApiError:
    message = (
        "the API key of this request is none of this pool's, or was revoked"
        if secret
        else "this pool asks for an API key: send it as `Authorization: Bearer lp-…`"
    )
    return ApiError(401, message, code="invalid_api_key", headers={"www-authenticate": "Bearer"})


def _check_here(scope: Scope, headers: Headers) -> None:
    """Raises ApiError for what does not come from this machine, or from a page or under a name of another's."""
    client, origin = scope.get("client"), headers.get("origin")
    named = [urlsplit(f"//{headers.get('host', '')}").hostname]
    if origin is not None:
        named.append(urlsplit(origin).hostname)
    if (client is not None and not _is_loopback(client[0])) or not all(map(_is_local, named)):
        raise ApiError(
            403,
            "this pool has no API keys, and so serves this machine alone, at http://127.0.0.1 or http://localhost; "
            "`lorapool keys add` makes a key",
            code="no_keys",
        )


@lru_cache(1024)
def _is_loopback(address: str) -> bool:
    with suppress(ValueError):
        return ip_address(address).is_loopback
    return False


def _is_local(host: str | None) -> bool:
    """Whether a name can lead nowhere but here or next door: one that a stranger owns has a dot."""
    return host is not None and (host.endswith(".localhost") or _is_loopback(host) or not {".", ":"} & set(host))
