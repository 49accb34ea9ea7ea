"""Toll: whom and what each fault struck: how many under load, and the jobs in its reach by their state."""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass, field
from typing import Any

from lorapool.shared.server.keys import Keys
from lorapool.shared.server.server import Server
from lorapool.shared.server.terms import Terms
from tests.chaos.plan import Fault, Kind

BUSY = 8  # running jobs that make a fault count as struck under load


@dataclass
class Tally:
    """Of one kind of fault: how many struck, how many under load, and the jobs in its reach, by their state."""

    struck: int = 0
    busy: int = 0
    jobs: Counter[str] = field(default_factory=Counter)


class Toll:
    """``server`` is a way of its own to the server, apart from all faults but those of the server itself."""

    def __init__(self, server: Server) -> None:
        self._server, self._keys = server, Keys("default")
        self.tallies: dict[Kind, Tally] = defaultdict(Tally)

    async def note(self, fault: Fault, worker: str | None = None) -> None:
        """In a fault's reach: what that worker runs, else every job that has not ended."""
        running = await self.running()
        reached = [job for job in running if worker in {None, job["worker"]}]
        tally = self.tallies[fault.kind]
        tally.struck += 1
        tally.busy += len(running) >= BUSY
        for job in reached:
            tally.jobs["running alone" if job["lost"] else "running, tokens out" if job["out"] else "running"] += 1
        if worker is None:
            tally.jobs.update(await self._waiting())

    async def running(self, worker: str | None = None) -> list[dict[str, Any]]:
        """Jobs under a lease; ``lost``: losses that count."""
        ids = await self._server.command("ZRANGE", self._keys.one("leases"), 0, -1)
        fields = ("worker", "lost", "lifted", "emitted")
        found = await self._server.pipeline(
            [("HMGET", self._keys.job(job_id.decode(errors="replace")), *fields) for job_id in ids]
        )
        jobs = [
            {"id": job_id.decode(), "worker": name.decode(), "lost": int(lost) - int(lifted or 0), "out": emitted}
            for job_id, (name, lost, lifted, emitted) in zip(ids, found, strict=True)
            if name is not None
        ]
        return [job for job in jobs if worker in {None, job["worker"]}]

    async def nobody_on_last_chance(self) -> bool:
        return all(job["lost"] + 1 < Terms().max_lost for job in await self.running())

    async def suspects(self) -> int:
        return int(await self._server.command("ZCARD", self._keys.one("suspects")))

    async def _waiting(self) -> dict[str, int]:
        waiting = await self._server.command("HGET", self._keys.one("waiting"), "*")
        delayed = await self._server.command("ZCARD", self._keys.one("delayed"))
        return {"queued": int(waiting or 0), "suspect": await self.suspects(), "delayed": int(delayed)}
