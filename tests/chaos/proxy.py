"""FaultProxy: one peer's way to the server, which can be slow, cut, silent, or lose a reply after the server acted.

Knows bytes and, to aim at operations rather than at blocking reads, which script a connection asked for last. Knows
nothing of what the scripts do.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections import Counter
from collections.abc import Mapping
from typing import Self

CHUNK_BYTES = 1 << 16
ACTS_S = 0.03  # within which the server has acted on what arrived
_SCRIPT = re.compile(rb"EVALSHA\r\n\$40\r\n([0-9a-f]{40})\r\n")


class Link:
    """One connection through the proxy. ``script``: name of the script that it waits for, if any."""

    def __init__(self, near: asyncio.StreamWriter, far: asyncio.StreamWriter) -> None:
        self.near, self.far = near, far
        self.silent = False
        self.script = ""

    def cut(self) -> None:
        """Reset both ends."""
        for end in (self.near, self.far):
            end.transport.abort()


class FaultProxy:
    """Listens on a port of its own, in front of ``port``. ``scripts``: name by sha, to say whose reply was lost."""

    def __init__(self, port: int, scripts: Mapping[str, str] | None = None) -> None:
        self._port, self._scripts = port, scripts or {}
        self._links: set[Link] = set()
        self._joined: set[asyncio.Task[None]] = set()
        self._to_lose = 0
        self._held_script, self._released = "", asyncio.Event()
        self.delay_s = 0.0  # of every chunk, either way
        self.lost: Counter[str] = Counter()  # replies, by script

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._join, "127.0.0.1", 0)
        self.url = f"redis://127.0.0.1:{self._server.sockets[0].getsockname()[1]}/0"
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        self.cut()
        await asyncio.gather(*self._joined)

    # -- faults

    def cut(self) -> None:
        """Every connection is reset; new ones are welcome."""
        for link in self._links:
            link.cut()

    def fall_silent(self) -> None:
        """Every connection goes half-open: it stays, and whatever is sent either way vanishes. New ones work."""
        for link in self._links:
            link.silent = True

    def lose_replies(self, count: int) -> None:
        """The next replies of scripts are dropped and their connections cut: the server acted, the peer cannot know."""
        self._to_lose = count

    def hold(self, script: str) -> None:
        """Requests to run that script wait on their way, and everything else falls silent, new connections too."""
        self._held_script = script
        self._released.clear()
        self.fall_silent()

    def release(self) -> None:
        """What was held arrives; then all connections are reset: on a silent one the peer might wait with renewals."""
        self._held_script = ""
        self._released.set()
        asyncio.get_running_loop().call_later(ACTS_S, self.cut)

    # -- carrying

    async def _join(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self._port)
        except OSError:
            writer.transport.abort()
            return
        link = Link(writer, far_writer)
        link.silent = bool(self._held_script)
        self._links.add(link)
        self._remember(asyncio.current_task())
        ways = {asyncio.ensure_future(self._there(reader, link)), asyncio.ensure_future(self._back(far_reader, link))}
        await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        for way in ways:
            way.cancel()
        await asyncio.gather(*ways, return_exceptions=True)
        self._links.discard(link)
        link.cut()

    def _remember(self, task: asyncio.Task[None] | None) -> None:
        assert task is not None
        self._joined.add(task)
        task.add_done_callback(self._joined.discard)

    async def _there(self, reader: asyncio.StreamReader, link: Link) -> None:
        with contextlib.suppress(OSError):
            while chunk := await reader.read(CHUNK_BYTES):
                if asked := _SCRIPT.search(chunk):
                    link.script = self._scripts.get(asked[1].decode(), "another")
                    if link.script == self._held_script:
                        await self._arrive_late(chunk, link)
                        return
                await self._carry(chunk, link, link.far)

    async def _arrive_late(self, chunk: bytes, link: Link) -> None:
        await self._released.wait()
        link.far.write(chunk)
        await link.far.drain()
        await asyncio.sleep(2 * ACTS_S)

    async def _back(self, reader: asyncio.StreamReader, link: Link) -> None:
        with contextlib.suppress(OSError):
            while chunk := await reader.read(CHUNK_BYTES):
                if self._to_lose and link.script and not link.silent:
                    self._to_lose -= 1
                    self.lost[link.script] += 1
                    return
                link.script = ""
                await self._carry(chunk, link, link.near)

    async def _carry(self, chunk: bytes, link: Link, to: asyncio.StreamWriter) -> None:
        if self.delay_s:
            await asyncio.sleep(self.delay_s)
        if not link.silent:
            to.write(chunk)
