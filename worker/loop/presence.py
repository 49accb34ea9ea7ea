"""Presence: this worker's name in the pool, from before its model loads until it leaves.

A name is one process's. A record that a process killed before left is displaced at once where that process is known
to be gone, else once its heartbeat has run out; one that is renewed meanwhile is another worker's. Knows what is
beaten, and nothing of what it means.
"""

from __future__ import annotations

import asyncio
import os
import secrets
import socket
import time
from collections.abc import AsyncIterator, Callable, Collection, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

import structlog

from lorapool.shared.errors import WorkerIdTaken
from lorapool.shared.fleet.membership import LOADING, Fields, Holder, Membership
from lorapool.shared.server.redis_retry import retry
from lorapool.shared.tasks import cancel_and_wait

BEATS_OF_LIFE = 3
LOOKS_A_BEAT = 4  # at a record that may be dead
PRESSING = frozenset({"state", "progress", "ails"})  # told with the next beat in any fleet
log = structlog.get_logger()


class Presence:
    """One process's, under the name ``worker``. ``identity``: fields of every beat that never change."""

    def __init__(
        self, members: Membership, worker: str, *, every_s: float, identity: Mapping[str, str | int] | None = None
    ) -> None:
        self.worker, self.every_s, self.boot = worker, every_s, secrets.token_hex(6)
        self._members = members
        self._identity = {"pid": os.getpid(), "host": socket.gethostname(), "place": _place(), **(identity or {})}
        self._progress = ""
        self.stride = 1
        self._beats = 0
        self._known: Fields = {}
        self._counted: dict[str, int] = {}

    async def join(self) -> None:
        """Take the name, waiting while a record lives that nobody renews. Raises WorkerIdTaken when one is renewed."""
        self._known = {}
        holder = first = await self._ask()
        if first is None:
            return
        log.warning("the name is taken", worker=self.worker, host=first.host, pid=first.pid)
        give_up_at = time.monotonic() + first.ttl_ms / 1000
        while holder is not None:
            if (holder.boot, holder.beat_ms) != (first.boot, first.beat_ms):
                raise WorkerIdTaken(self._taken(holder))
            if _is_gone(holder) or time.monotonic() >= give_up_at:
                holder = await self._ask(displace=holder.boot)
            else:
                await asyncio.sleep(self.every_s / LOOKS_A_BEAT)
                holder = await self._ask()

    async def beat(self, fields: Fields, totals: Collection[str] = ()) -> str:
        """One beat; returns the mark that changes with who takes jobs. Raises WorkerIdTaken once the name is lost.

        Told is what has changed since it was last told and acknowledged; all, when the server has forgotten it. What is
        not PRESSING is told every ``stride`` beats. ``totals``: which of the fields the pool sums up over all workers.
        """
        beaten, known, self._known = {**self._identity, "progress": "", **fields}, self._known, {}
        due = PRESSING if known and self._beats % self.stride else beaten.keys()
        news = {name: beaten[name] for name in beaten if name in due and beaten[name] != known.get(name)}
        mark = await self._send({**news, "state": beaten["state"]}, totals, changes=True) if known else ""
        if not mark:
            known, news = {}, beaten
            mark = await self._send(beaten, totals, changes=False)
        self._known = {**known, **news}
        self._counted |= {name: max(self._counted.get(name, 0), int(news[name])) for name in totals if name in news}
        self._beats += 1
        return mark

    @asynccontextmanager
    async def loading(self) -> AsyncIterator[Callable[[str], None]]:
        """Beat as a worker that loads, until left; tell what is given how far it is (from any thread)."""
        beating = asyncio.create_task(self._beat_while_loading())
        try:
            yield self._tell
        finally:
            await cancel_and_wait(beating)

    async def leave(self) -> None:
        """Give the name up."""
        await self._members.leave(self.worker, self.boot)

    def _tell(self, progress: str) -> None:
        self._progress = progress

    async def _beat_while_loading(self) -> None:
        while True:
            await retry(lambda: self.beat({"state": LOADING, "progress": self._progress}), "heartbeat")
            await asyncio.sleep(self.every_s)

    async def _send(self, fields: Fields, totals: Collection[str], *, changes: bool) -> str:
        counted = {name: self._counted.get(name, 0) for name in totals if name in fields}
        return await self._members.beat(
            self.worker, fields, self._ttl_ms, boot=self.boot, counted=counted, changes=changes
        )

    async def _ask(self, displace: str = "") -> Holder | None:
        """Try to take the name; or who has it."""
        fields = {**self._identity, "state": LOADING, "progress": self._progress}
        names = {"boot": self.boot, "displace": displace}
        return await retry(lambda: self._members.join(self.worker, fields, self._ttl_ms, **names), "join")

    @property
    def _ttl_ms(self) -> int:
        return round(1000 * BEATS_OF_LIFE * self.every_s)

    def _taken(self, holder: Holder) -> str:
        return (
            f"worker name {self.worker!r} belongs to process {holder.pid or '?'} on host {holder.host or '?'}, which "
            f"is alive; this is process {os.getpid()} on host {socket.gethostname()}: give each worker a --worker-id "
            "of its own, or none"
        )


def _is_gone(holder: Holder) -> bool:
    """Whether that process ran where this one would see it, and is not there."""
    if (holder.host, holder.place) != (socket.gethostname(), _place()) or not holder.pid.isdecimal():
        return False
    pid = int(holder.pid)
    if pid == os.getpid():  # ours now, after a restart
        return True
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    except (PermissionError, OverflowError):
        return False
    return _is_zombie(pid)


def _is_zombie(pid: int) -> bool:
    """Dead, and nobody has asked for its exit status yet."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(errors="replace")
    except OSError:
        return False
    return stat.rpartition(")")[2].split()[:1] == ["Z"]


def _place() -> str:
    """What tells two containers of one host apart: a pid means something within its namespace only."""
    namespace = Path("/proc/self/ns/pid")
    return str(namespace.readlink()) if namespace.is_symlink() else ""
