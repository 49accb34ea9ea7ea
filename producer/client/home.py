"""Home: the process and the event loop that a client lives in, until it is closed.

Elsewhere its connections would be shared with their owner, and its waiting would never end: what is called there, or
after the end, raises. Knows no Redis but the class of its connections.
"""

from __future__ import annotations

import asyncio
import os
from typing import Any

from lorapool.shared.errors import ClientClosed, ForeignClient


class Home:
    """The process is the one that made it, the event loop the first that ``check`` sees."""

    def __init__(self) -> None:
        self._pid = os.getpid()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._closed = False

    @property
    def here(self) -> bool:
        """Whether this is the process that made the client."""
        return os.getpid() == self._pid

    @property
    def gone(self) -> bool:
        """Whether the client's event loop has ended, and its connections with it."""
        return self._loop is not None and self._loop.is_closed()

    def check(self) -> None:
        """Raises ClientClosed or ForeignClient where nothing can be asked any more."""
        self.check_process()
        if self._closed:
            raise ClientClosed("this client is closed: open a new one; jobs that it submitted go on")
        loop = asyncio.get_running_loop()
        self._loop = self._loop or loop
        if loop is not self._loop:
            raise ForeignClient(
                "this client was first used in another event loop: create a client in each loop (each asyncio.run), "
                "or use lorapool.producer.sync.Client, which threads may share"
            )

    def check_loop(self) -> None:
        """Raises ForeignClient in another event loop than the client's, unless that has ended."""
        if self._loop is not None and not self._loop.is_closed() and self._loop is not asyncio.get_running_loop():
            raise ForeignClient("this client lives in another event loop: close it there")

    def check_process(self) -> None:
        """Raises ForeignClient in a fork of the process that made the client."""
        if not self.here:
            raise ForeignClient(
                f"this client was created in process {self._pid} and is used in its fork {os.getpid()}: connections "
                "cannot be shared; create the client in the child"
            )

    def leave(self) -> None:
        """From now on nothing can be asked."""
        self._closed = True


def at_home(kind: Any, home: Home) -> Any:
    """That class of connections, which connects, and is taken from its pool, at home alone."""

    class AtHome(kind):  # type: ignore[misc]  # a class that redis-py chose
        async def connect(self) -> None:
            home.check()
            await super().connect()

    return AtHome
