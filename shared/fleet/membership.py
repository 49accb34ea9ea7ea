"""Membership: which workers a pool has, what each says of itself, and whose each name is.

A worker lives as long as it beats. A zset has the names by when they vanish, a set those that take jobs; each worker
has a hash that only who asks reads, so that a beat costs the server the same in any fleet. A name is one boot's: the
first that takes it, until it leaves or its beats have ended. Knows nothing of what workers do.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lorapool.shared.connection import PoolConnection
from lorapool.shared.errors import MalformedEntry, WorkerIdTaken
from lorapool.shared.job import check_name
from lorapool.shared.malformed import numbers, readable, text_map
from lorapool.shared.scripts import answers, records
from lorapool.shared.server.server import Arg, scores

Fields = Mapping[str, str | int | float]
Beats = list[dict[str, str]]
CANDIDATES = 16  # of those that beat last, for a request that any worker may take
LOADING, RUNNING, DRAINING = "loading", "running", "draining"


@dataclass(frozen=True, slots=True)
class Holder:
    """Who lives under a name: which boot, where, and when it last beat (server's time), for ``ttl_ms`` after that."""

    boot: str
    host: str
    pid: str
    place: str
    beat_ms: str
    ttl_ms: int


class Membership:
    """The workers of one pool. All methods raise RedisUnreachable, RedisAuthFailed or RedisFull."""

    def __init__(self, connection: PoolConnection) -> None:
        self._server, self._keys, self._scripts = connection.server, connection.keys, connection.scripts

    async def join(self, worker: str, fields: Fields, ttl_ms: int, *, boot: str, displace: str = "") -> Holder | None:
        """Take that name and be there, serving nothing yet; or who has it, other than the boot to ``displace``."""
        head = records.Join(worker=check_name("worker", worker), boot=boot, ttl_ms=ttl_ms, displaced=displace)
        word, *answer = await self._scripts.run("join", *head, *_flat(fields))
        if word == b"joined":
            return None
        there = answers.Holder(*(part.decode(errors="replace") for part in answer))
        return Holder(there.boot, there.host, there.pid, there.place, there.beat_ms, _whole(there.ttl_ms, ttl_ms))

    async def beat(
        self,
        worker: str,
        fields: Fields,
        ttl_ms: int,
        *,
        boot: str = "",
        counted: Mapping[str, int] | None = None,
        changes: bool = False,
    ) -> str:
        """I am alive; forget me ``ttl_ms`` after my last beat. Returns a mark that changes with who takes jobs.

        Whose ``state`` is neither loading nor draining takes jobs. ``counted``: of these fields, the totals that
        earlier beats of this ``boot`` were acknowledged with; what they have grown by since is added to the pool's
        usage. ``changes``: these fields are not all; nothing is written where the record of the others is gone, and
        the mark is empty. Raises WorkerIdTaken when another boot lives under that name.
        """
        counted, rest = counted or {}, dict(fields)
        totals: list[Arg] = []
        for name, before in counted.items():
            totals += records.Total(name=name, total=rest.pop(name), counted=before)
        serves = int(rest.get("state") not in {LOADING, DRAINING})
        head = records.Beat(
            worker=check_name("worker", worker),
            boot=boot,
            ttl_ms=ttl_ms,
            serves=serves,
            scope="changes" if changes else "all",
            totals=len(counted),
        )
        word, *more = await self._scripts.run("beat", *head, *totals, *_flat(rest))
        if word == b"taken":
            _, host, pid = (part.decode(errors="replace") for part in more)
            raise WorkerIdTaken(
                f"worker name {worker!r} was taken by process {pid or '?'} on host {host or '?'} while this one was "
                "silent for longer than a heartbeat lives; give each worker a --worker-id of its own"
            )
        return more[0].decode() if more else ""

    async def leave(self, worker: str, boot: str = "") -> None:
        """This worker is gone, on purpose; nothing happens if the name is another boot's by now."""
        await self._scripts.run("leave", *records.Leave(worker=worker, boot=boot))

    async def serving(self) -> list[str]:
        """The names of those that take jobs, sorted; one that has just died may be among them."""
        stored = await self._server.command("SMEMBERS", self._keys.serving)
        return sorted(name.decode(errors="replace") for name in stored)

    async def liveliest(self, but: str = "") -> str:
        """One of those that beat last, rather one that takes jobs, other than ``but``; empty if none is alive."""
        now_ms = await self._server.now_ms()
        scored = scores(await self._names("REV", "WITHSCORES", last=CANDIDATES - 1))
        names = [name for name, score in scored if score > now_ms and name != but.encode()]
        if not names:
            return ""
        serves = await self._server.command("SMISMEMBER", self._keys.serving, *names)
        chosen: bytes = next((name for name, yes in zip(names, serves, strict=True) if yes), names[0])
        return chosen.decode(errors="replace")

    async def all(self) -> Beats:
        """Live workers by name: their last beat's fields, ``worker``, and ``age_ms`` of it by the server's clock."""
        return await self.some(await self._names())

    async def names(self) -> list[str]:
        """Those that live, sorted, without their beats."""
        return sorted(name.decode(errors="replace") for name in await self._names())

    async def some(self, names: Sequence[bytes]) -> Beats:
        """The same of those names that live."""
        texts = sorted(name.decode(errors="replace") for name in names)
        keys = [self._keys.worker(name) for name in texts]
        stored = await self._server.pipeline([command for key in keys for command in (("HGETALL", key), ("PTTL", key))])
        beats = zip(texts, stored[::2], stored[1::2], strict=True)
        return readable("heartbeat", (beat for beat in beats if beat[1]), _beat)

    async def loading(self, worker: str) -> frozenset[str]:
        """The adapters that this worker says it is loading now."""
        refs = await self._server.command("HGET", self._keys.worker(worker), "loading")
        return frozenset(refs.decode(errors="replace").split()) if refs else frozenset()

    async def usage(self) -> dict[str, int | float]:
        """What all workers there ever were did together: ``up_ms busy_ms steps …``, ``open_ms`` with any worker there.

        ``since_ms`` and ``last_ms`` are the server's time of the first and the last beat.
        """
        return numbers(await self._server.command("HGETALL", self._keys.usage))

    async def _names(self, *options: str, last: int = -1) -> Sequence[Any]:
        try:
            names: Sequence[Any] = await self._server.command("ZRANGE", self._keys.workers, 0, last, *options)
        except MalformedEntry:  # a set of an older release; the next beat replaces it
            return []
        return names


def _beat(beat: tuple[str, Any, int]) -> dict[str, str]:
    name, reply, left_ms = beat
    fields = text_map(reply)
    age_ms = max(0, _whole(fields.pop("ttl_ms", ""), left_ms) - left_ms)
    fields.pop("serves", None)
    return {"worker": name, **fields, "age_ms": str(age_ms)}


def _whole(text: str, otherwise: int) -> int:
    return int(text) if text.isdecimal() else otherwise


def _flat(fields: Mapping[str, Arg]) -> list[Arg]:
    return [part for pair in fields.items() for part in pair]
