"""Aliases: names that point at adapter versions, moved one at a time, and back.

A role, a persona, an agent with a purpose (``ceo.leadership``): each is a name of its own, case-folded. Every move is
one script that remembers where the name pointed and knows its own repeat by a token. Knows nothing of jobs: one that
was submitted has an exact version already.
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from typing import NamedTuple
from zlib import crc32

from lorapool.shared.connection import PoolConnection
from lorapool.shared.errors import AdapterClosed, AdapterNotReady, AdapterRefused, InvalidRequest, UnknownAdapter
from lorapool.shared.job import check_name
from lorapool.shared.malformed import readable, text_map
from lorapool.shared.scripts import records
from lorapool.shared.server.keys import bare_id


def alias_of(agent: str, purpose: str | None = None) -> str:
    """The alias of an agent, or of an agent in one of its purposes: ``alias_of("CEO", "leadership")``.

    Case-folded, as all aliases are. Raises InvalidRequest for what is no name.
    """
    name = check_name("agent", agent) if purpose is None else f"{agent}.{check_name('purpose', purpose)}"
    return check_name("alias", name).casefold()


@dataclass(frozen=True, slots=True)
class Move:
    """One entry of an alias's log. ``how``: register, set, rollback or delete; an empty ref is nowhere. Of its canary's
    moves it is canary."""

    at_ms: int
    how: str
    before: str
    after: str


class Canary(NamedTuple):
    """``percent`` of an alias's jobs go to ``ref`` instead of where it points."""

    percent: int
    ref: str

    @classmethod
    def of(cls, text: str) -> Canary:
        """As stored."""
        percent, ref = text.split(" ")
        return cls(int(percent), ref)

    def takes(self, job_id: str) -> bool:
        """Whether that job goes there: always the same for the same id."""
        return crc32(bare_id(job_id).encode()) % 100 < self.percent


class Aliases:
    """The aliases of one pool."""

    def __init__(self, connection: PoolConnection) -> None:
        self._pool, self._server = connection.pool, connection.server
        self._keys, self._scripts = connection.keys, connection.scripts

    async def all(self) -> dict[str, str]:
        """Alias → ref."""
        return text_map(await self._server.command("HGETALL", self._keys.aliases))

    async def move(self, name: str, ref: str) -> str:
        """Point ``name`` at an exact ref; returns the ref it had, empty if it is new.

        A name in use moves only to a ready version; a new one may point at a pending one. Raises UnknownAdapter,
        AdapterNotReady, AdapterRefused, AdapterClosed.
        """
        answer = await self._run("alias", records.Alias(name=_folded(name), ref=ref, token=_new_token()))
        if answer[0] != "moved":
            raise _refusal(answer[0], name, ref, self._pool)
        return answer[1]

    async def canary(self, name: str, ref: str, percent: int) -> str:
        """Let ``percent`` of the jobs of ``name`` go to ``ref``, another ready version of the adapter it points at; 0
        ends it, as moving the alias does. Returns the canary it had, or nothing.

        Which job goes there follows from its id, so that a repeat goes the same way. Raises InvalidRequest,
        UnknownAdapter, AdapterNotReady, AdapterRefused, AdapterClosed.
        """
        if isinstance(percent, bool) or not isinstance(percent, int) or not 0 <= percent <= 100:
            raise InvalidRequest(f"percent = {percent!r}: expected a whole number from 0 to 100")
        wish = records.Canary(name=_folded(name), ref=ref if percent else "", percent=percent, token=_new_token())
        answer = await self._run("canary", wish)
        if answer[0] == "other":
            raise InvalidRequest(f"{ref} is no canary of alias {name!r}: expected another version of what it points at")
        if answer[0] != "moved":
            raise _refusal(answer[0], name, ref, self._pool)
        return answer[1]

    async def canaries(self) -> dict[str, Canary]:
        """Alias → where a part of its jobs goes."""
        stored = text_map(await self._server.command("HGETALL", self._keys.canaries))
        return dict(readable("canary", stored.items(), lambda pair: (pair[0], Canary.of(pair[1]))))

    async def delete(self, name: str) -> str:
        """Let ``name`` mean nothing; returns the ref it had. ``rollback`` brings it back. Raises UnknownAdapter."""
        answer = await self._run("alias", records.Alias(name=_folded(name), ref="", token=_new_token()))
        if answer[0] != "moved":
            raise _refusal(answer[0], name, "", self._pool)
        return answer[1]

    async def rollback(self, name: str) -> tuple[str, str]:
        """Point ``name`` back at its latest earlier target that still serves; (ref it had, ref it has).

        Once more goes further back. Raises InvalidRequest when none is left.
        """
        answer = await self._run("rollback", records.Rollback(name=_folded(name), token=_new_token()))
        if answer[0] != "moved":
            now = f"it stays at {answer[1]}" if answer[1] else "it points nowhere"
            raise InvalidRequest(f"alias {name!r} has no earlier version that still serves; {now}")
        return answer[1], answer[2]

    async def history(self, name: str) -> list[Move]:
        """The latest moves of ``name`` (at most 32), latest first; empty for a name that was never used."""
        key = self._keys.moves(check_name("alias", name).casefold())
        lines = await self._server.command("LRANGE", key, 0, -1)
        return readable("move of an alias", lines, _move)

    async def _run(self, script: str, args: tuple[str | int, ...]) -> list[str]:
        return [part.decode(errors="replace") for part in await self._scripts.run(script, *args)]


def _folded(name: str) -> str:
    return check_name("alias", name).casefold()


def _new_token() -> str:
    """Of one wish: its repeat brings the same."""
    return secrets.token_hex(8)


def _move(line: bytes) -> Move:
    at_ms, how, before, after, _token = line.decode().split(" ")
    return Move(int(at_ms), how, *("" if ref == "-" else ref for ref in (before, after)))


def _refusal(word: str, name: str, ref: str, pool: str) -> Exception:
    if word == "pending":
        return AdapterNotReady(f"alias {name!r} stays where it is: no worker has validated {ref} yet")
    if word == "refused":
        return AdapterRefused(f"alias {name!r} stays where it is: a worker refused {ref}", reason="refused")
    if word == "removed":
        return AdapterClosed(f"alias {name!r} stays where it is: {ref} was removed; register it again to serve it")
    what = f"adapter version {ref!r}" if ref else f"alias {name!r}"
    return UnknownAdapter(f"no {what} in pool {pool!r}")
