"""KeyBook: the API keys of a pool: added, listed, revoked, and found by their secrets, of which it keeps hashes alone.

What a key may use is heeded by the queue's own scripts, where its jobs are accepted and end. Knows no HTTP. All methods
raise RedisUnreachable, RedisAuthFailed or RedisFull besides what they name.

Keys lie in the partition, where those scripts reach them; and so does every Redis user that submits jobs. Who is an
operator is therefore said among the pool's own keys as well.
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from typing import Any, Literal

from lorapool.shared.access.key import Key, KeyUse, digest_of, new_secret
from lorapool.shared.connection import PoolConnection
from lorapool.shared.errors import KeyConflict, UnknownKey
from lorapool.shared.job import check_name
from lorapool.shared.malformed import readable, required, text_map
from lorapool.shared.scripts import records
from lorapool.shared.server.server import Arg

Uses = list[KeyUse]
LOOKED_AT = 256  # keys of one call


class KeyBook:
    """Of one pool."""

    def __init__(self, connection: PoolConnection) -> None:
        partition = connection.partition()
        self._server, self._scripts, self._keys = partition.server, partition.scripts, partition.keys
        self._operators = connection.keys.operators

    async def add(
        self,
        name: str,
        *,
        agent: str | None = None,
        adapters: Sequence[str] = ("*",),
        role: Literal["agent", "operator"] = "agent",
        jobs_per_minute: int | None = None,
        tokens_per_day: int | None = None,
        window: int | None = None,
        by: str = "cli",
    ) -> str:
        """Add a key and return its secret, which nobody can ask for again.

        ``agent`` is who its jobs are counted under: the key's own name, unless given. ``adapters`` are patterns of ids
        (``cfo*``; ``_base`` is the base model). See ``Key`` for the rest; ``by`` is who is named in the audit stream. A
        revoked key's name may be given again. Raises InvalidRequest, KeyConflict.
        """
        given: dict[str, Any] = {"name": name, "agent": name if agent is None else agent, "adapters": tuple(adapters)}
        given |= {"role": role, "jobs_per_minute": jobs_per_minute, "tokens_per_day": tokens_per_day, "window": window}
        key = Key.parse(given)
        secret = new_secret()
        digest = digest_of(secret) or ""
        note = " ".join(f"{field}={text}" for field, text in key.stored().items() if text)
        head = records.KeyAdd(name=key.name, digest=digest, by=by, note=note)
        fields: list[Arg] = [part for pair in key.stored().items() for part in pair]
        if not await self._scripts.run("key_add", *head, *fields):
            raise KeyConflict(f"an API key {name!r} exists in pool {self._keys.pool!r}: revoke it, or use another name")
        if role == "operator":
            await self._server.command("SADD", self._operators, digest)
        return secret

    async def revoke(self, name: str, *, by: str = "cli") -> None:
        """It submits nothing from now on; what it submitted goes on. Raises UnknownKey."""
        act = records.KeyRevoke(name=check_name("key", name), id=secrets.token_hex(8), by=by)
        digest = await self._scripts.run("key_revoke", *act)
        if digest is None:
            raise UnknownKey(self._unknown(name))
        await self._server.command("SREM", self._operators, digest)

    async def list(self) -> Uses:
        """Every key and what it has used, oldest first; those revoked within the last 30 days too."""
        uses: Uses = []
        looked = 0
        while True:
            seen, *rows = await self._scripts.run("key_list", *records.KeyList(seen=looked, wanted=LOOKED_AT))
            uses += readable("API key", rows, _use)
            looked += seen
            if seen < LOOKED_AT:
                return uses

    async def get(self, name: str) -> Key:
        """Raises UnknownKey, MalformedEntry."""
        fields = await self._server.command("HGETALL", self._keys.key(check_name("key", name)))
        if not fields:
            raise UnknownKey(self._unknown(name))
        return required(f"key {name}", lambda: Key.of_record(text_map(fields)))

    async def find(self, secret: str) -> Key | None:
        """The key of that secret, unless it was revoked; one round trip (an operator's two), none for what cannot be a
        secret."""
        digest = digest_of(secret)
        fields = await self._scripts.run("key_find", digest) if digest is not None else None
        if not fields:
            return None
        key = required("an API key", lambda: Key.of_record(text_map(fields)))
        forged = key.role == "operator" and not await self._server.command("SISMEMBER", self._operators, digest or "")
        return None if forged else key

    async def any(self) -> bool:
        """Whether the pool has keys, or ever had: it does not open to everybody when the last one is revoked."""
        return bool(await self._server.command("EXISTS", self._keys.one("keys")))

    def _unknown(self, name: str) -> str:
        return f"no API key {name!r} in pool {self._keys.pool!r}; see `lorapool keys ls`"


def _use(row: Sequence[Any]) -> KeyUse:
    jobs, tokens, *fields = row
    return KeyUse(Key.of_record(text_map(fields)), jobs, tokens)
