"""Sessions: who has signed in to a pool's console, with which key, until when; at any replica.

A session is a random token, of which a hash is kept here; it ends by itself, when it is ended, and with its key. All
methods raise RedisUnreachable, RedisAuthFailed or RedisFull.
"""

from __future__ import annotations

import secrets
from hashlib import sha256

from lorapool.shared.access.key import Key
from lorapool.shared.access.key_book import KeyBook
from lorapool.shared.connection import PoolConnection
from lorapool.shared.errors import InvalidRequest, UnknownKey

SESSION_S = 12 * 3600
MAX_TOKEN = 128  # characters of what may be one


class Sessions:
    """Of the keys of one pool."""

    def __init__(self, connection: PoolConnection, keys: KeyBook) -> None:
        self._server, self._keys, self._book = connection.server, connection.keys, keys

    async def begin(self, key: Key) -> str:
        """A new session of an operator's key; its token."""
        token = secrets.token_urlsafe(32)
        held = f"{key.name} {key.created_ms}"
        await self._server.command("SET", self._key(token), held, "PX", SESSION_S * 1000)
        return token

    async def who(self, token: str) -> str | None:
        """The name of the key that this session was begun with; None once it, the session or its role is gone."""
        held = await self._server.command("GET", self._key(token)) if 0 < len(token) <= MAX_TOKEN else None
        if held is None:
            return None
        name, _, created_ms = held.decode(errors="replace").partition(" ")
        try:
            key = await self._book.get(name)
        except (UnknownKey, InvalidRequest):
            return None
        stands = key.role == "operator" and key.revoked_ms is None and str(key.created_ms) == created_ms
        return name if stands else None

    async def end(self, token: str) -> None:
        """Nobody is signed in by that token any more."""
        await self._server.command("UNLINK", self._key(token[:MAX_TOKEN]))

    def _key(self, token: str) -> str:
        return self._keys.session(sha256(token.encode()).hexdigest())
