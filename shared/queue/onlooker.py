"""Onlooker: a partition's queue as it is now, seen in looks of a bounded size: how much waits and runs, which jobs.

Whatever the number of adapters and jobs, a look costs the server and the caller the same. Changes nothing. All methods
raise RedisUnreachable or RedisAuthFailed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from lorapool.shared.connection import Partition
from lorapool.shared.malformed import number, readable, text_map
from lorapool.shared.server.keys import LANES
from lorapool.shared.server.server import Command, scores

LONGEST = 12  # adapters told of in a glance
MOST = 500  # jobs of one look
_FIELDS = ("state", "ref", "agent", "worker", "attempts", "submitted_ms", "started_ms", "due_ms", "priority")


class WaitingRef(NamedTuple):
    """An adapter with claimable jobs: how many wait, and since when its next one could have been claimed."""

    ref: str
    waiting: int
    since_ms: int


@dataclass(frozen=True, slots=True)
class Glance:
    """``oldest_wait_ms``: of the job that has been claimable longest, None where none is; ``longest``: its adapter's
    and that of the next ones. ``backlogged``: how many adapters have claimable jobs."""

    now_ms: int
    waiting: int
    running: int
    delayed: int
    dead: int
    backlogged: int
    longest: tuple[WaitingRef, ...]

    @property
    def oldest_wait_ms(self) -> int | None:
        return max(0, self.now_ms - self.longest[0].since_ms) if self.longest else None


class SeenJob(NamedTuple):
    """A job in short; a time of 0 has not come."""

    job_id: str  # full id
    state: str
    ref: str
    agent: str
    worker: str
    attempts: int
    submitted_ms: int
    started_ms: int
    due_ms: int
    priority: str

    @property
    def waited_ms(self) -> int:
        """From when it could have been claimed to its claim."""
        return max(0, self.started_ms - max(self.submitted_ms, self.due_ms))


class RefDepth(NamedTuple):
    """What the queue has of one adapter; ``state`` is empty where it was never opened."""

    state: str
    waiting: int
    running: int
    claimed_ms: int


class Onlooker:
    """One partition's."""

    def __init__(self, partition: Partition) -> None:
        self._keys, self._server = partition.keys, partition.server

    async def glance(self) -> Glance:
        """The whole, in two round trips."""
        one = self._keys.one
        now, waiting, running, delayed, dead, ready, first = await self._server.pipeline(
            [
                ("TIME",),
                ("HGET", one("waiting"), "*"),
                ("ZCARD", one("leases")),
                ("ZCARD", one("delayed")),
                ("XLEN", one("dead")),
                ("ZCARD", one("ready")),
                ("ZRANGE", one("ready"), 0, LONGEST - 1, "WITHSCORES"),
            ]
        )
        longest = await self._longest(scores(first))
        now_ms = int(now[0]) * 1000 + int(now[1]) // 1000
        waits, runs, later, given_up, refs = (int(number(n)) for n in (waiting, running, delayed, dead, ready))
        return Glance(now_ms, waits, runs, later, given_up, refs, longest)

    async def depths(self, refs: Sequence[str]) -> dict[str, RefDepth]:
        """Of these adapters, by ref."""
        commands: list[Command] = []
        for ref in refs:
            commands += [
                ("HMGET", self._keys.adapter(ref), "state", "claimed_ms"),
                ("HGET", self._keys.one("waiting"), ref),
                ("HGET", self._keys.one("running"), ref),
            ]
        rows = await self._server.pipeline(commands)
        return {ref: _depth(*rows[3 * at : 3 * at + 3]) for at, ref in enumerate(refs)}

    async def running(self, n: int = 100) -> list[SeenJob]:
        """Up to ``n`` of those that run, the ones renewed longest ago first."""
        ids = await self._server.command("ZRANGE", self._keys.one("leases"), 0, min(n, MOST) - 1)
        return await self._jobs(ids)

    async def waiting(self, ref: str, n: int = 50) -> list[SeenJob]:
        """Up to ``n`` of those that wait for an adapter, as they came, all lanes."""
        streams = [self._keys.stream(ref, lane) for lane in LANES]
        count = max(1, min(n, MOST))
        lanes = await self._server.pipeline([("XRANGE", stream, "-", "+", "COUNT", count) for stream in streams])
        ids = readable("entry of a stream", [entry for lane in lanes for entry in lane], lambda entry: entry[1][b"job"])
        jobs = await self._jobs(ids[:MOST])
        return sorted(jobs, key=lambda job: job.submitted_ms)[:count]

    async def delayed(self, n: int = 50) -> list[SeenJob]:
        """Up to ``n`` of those that may not start yet, the next due first."""
        return await self._jobs(await self._server.command("ZRANGE", self._keys.one("delayed"), 0, min(n, MOST) - 1))

    async def _longest(self, first: Sequence[tuple[bytes, float]]) -> tuple[WaitingRef, ...]:
        if not first:
            return ()
        refs = [ref for ref, _ in first]
        depths = await self._server.command("HMGET", self._keys.one("waiting"), *refs)
        rows = zip(refs, depths, (since for _, since in first), strict=True)
        return tuple(WaitingRef(ref.decode(errors="replace"), int(number(n)), int(since)) for ref, n, since in rows)

    async def _jobs(self, ids: Sequence[bytes]) -> list[SeenJob]:
        texts = [each.decode(errors="replace") for each in ids]
        rows = await self._server.pipeline([("HMGET", self._keys.job(each), *_FIELDS) for each in texts])
        there = ((self._keys.full_id(each), row) for each, row in zip(texts, rows, strict=True) if row[0])
        return readable("record of a job", there, _seen)


def _depth(record: Any, waiting: Any, running: Any) -> RefDepth:
    state, claimed_ms = record
    return RefDepth(
        (state or b"").decode(errors="replace"), int(number(waiting)), int(number(running)), int(number(claimed_ms))
    )


def _seen(row: tuple[str, Sequence[bytes | None]]) -> SeenJob:
    job_id, values = row
    fields = text_map({name.encode(): value or b"" for name, value in zip(_FIELDS, values, strict=True)})
    numbers = {name: int(number(fields[name])) for name in ("attempts", "submitted_ms", "started_ms", "due_ms")}
    return SeenJob(job_id=job_id, **{**fields, **numbers})  # type: ignore[arg-type]  # each by its name
