"""Clock: the server's clock as every script of lorapool reads it, which can be told to go ahead and to come back.

A real server's clock cannot be set without its machine's. So the one line of the scripts that reads it adds what lies
in a key: all that the protocol decides by time jumps, in every process that has called ``follow``; what the server
itself times (a key's expiry) does not.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from lorapool.shared import scripts
from lorapool.shared.scripts import texts
from lorapool.shared.server.server import Server

KEY = "chaos:clock"  # milliseconds to add
VARIABLE = "LORAPOOL_CHAOS_CLOCK"  # set: a fake worker follows
HOUR_MS = 3_600_000
_read = texts.read


@contextmanager
def followed() -> Iterator[None]:
    """This process's scripts read the clock with what is added, until left."""
    follow()
    try:
        yield
    finally:
        texts.read = _read
        scripts.script.cache_clear()


def follow() -> None:
    """The same for good."""
    texts.read = _shifted
    scripts.script.cache_clear()


async def jump(server: Server, by_ms: int) -> None:
    """From now on it is so much later than it is."""
    await server.command("SET", KEY, by_ms)


async def come_back(server: Server) -> None:
    await server.command("DEL", KEY)


def _shifted(part: str) -> str:
    text = _read(part)
    if part == texts.PRELUDE:
        assert scripts.NOW in text
        text = text.replace(scripts.NOW, f"{scripts.NOW} + (tonumber(redis.call('GET', '{KEY}')) or 0)")
    return text
