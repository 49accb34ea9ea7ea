"""Listing: a page of records by the time they came, newest first; of all, or of one agent's.

Records that have expired are forgotten as they are met; damaged ones are left out. Knows the sorted sets of ids and the
hashes beside them, and nothing of what those mean.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from lorapool.shared.malformed import readable
from lorapool.shared.server.server import Server

T = TypeVar("T")
PAGE = 100


async def page(
    server: Server,
    index: str,
    key_of: Callable[[str], str],
    read: Callable[[Any], T | None],
    *,
    after: str | None,
    limit: int,
    ascending: bool = False,
) -> tuple[list[T], bool]:
    """Up to ``limit`` of those that ``read`` makes something of, behind the one called ``after``; and whether there are
    more. An ``after`` that is not there begins at the beginning."""
    rank, span = ("ZRANK", "ZRANGE") if ascending else ("ZREVRANK", "ZREVRANGE")
    found: list[T] = []
    before = await server.command(rank, index, after) if after else None
    start = 0 if before is None else int(before) + 1
    while len(found) <= limit:
        names = await server.command(span, index, start, start + PAGE - 1)
        if not names:
            return found, False
        stored = await server.pipeline([("HGETALL", key_of(name.decode(errors="replace"))) for name in names])
        if gone := [name for name, fields in zip(names, stored, strict=True) if not fields]:
            await server.command("ZREM", index, *gone)
        start += len(names) - len(gone)
        found += [each for each in readable("record of a list", filter(None, stored), read) if each is not None]
    return found[:limit], True
