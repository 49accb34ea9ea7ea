"""Caller: a client that asks for everything there is, of what is damaged; each call ends in time."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from random import Random

from redis.asyncio import Redis

from lorapool.producer.client.client import Client
from lorapool.shared.connection import PoolConnection
from lorapool.shared.errors import LorapoolError
from lorapool.shared.timetable.chores import ChoreBook
from lorapool.shared.timetable.timetable import Timetable
from lorapool.worker.maintenance.chores import Chores
from lorapool.worker.maintenance.due_runs import DueRuns
from tests.fuzz.scribbler import JOBS, KEYS, VICTIMS
from tests.parts import Queue, catalog_of, membership_of

CALL_S = 20.0  # for one call, on a busy machine


def chores_of(redis: Redis) -> Chores:
    """The chores of that pool, as a maintenance worker does them."""
    catalog, queue = catalog_of(redis, KEYS.pool), Queue(redis, KEYS.pool)
    due_runs = DueRuns(Timetable(PoolConnection(redis, KEYS.pool)), catalog, lambda _: queue)
    book = ChoreBook(PoolConnection(redis, KEYS.pool))
    return Chores(membership_of(redis, KEYS.pool), book, [queue], due_runs)


class Caller:
    """A client that asks for everything there is, of what is damaged, and does the pool's chores."""

    def __init__(
        self, client: Client, chores: Chores, random: Random, report: Callable[[str, BaseException], None]
    ) -> None:
        self._client, self._chores, self._random, self._report = client, chores, random, report
        self.calls = 0

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            name, call = self._random.choice(list(self._asks()))
            self.calls += 1
            try:
                async with asyncio.timeout(CALL_S):
                    await call()
            except LorapoolError:
                continue
            except Exception as error:  # noqa: BLE001 - that is what is looked for
                self._report(name, error)
            await asyncio.sleep(0.01)

    def _asks(self) -> Iterator[tuple[str, Callable[[], Awaitable[object]]]]:
        client, victim = self._client, self._random.choice((*VICTIMS, "chief", "foreign"))
        job = client.get(self._random.choice(JOBS))
        yield "submit", lambda: self._submitted(victim)
        yield "state", job.state
        yield "record", job.record
        yield "result", lambda: job.result(0.2)
        yield "stream", self._streamed
        yield "explain", job.explain
        yield "cancel", job.cancel
        yield "adapters", client.adapters.list
        yield "aliases", client.adapters.aliases
        yield "history", lambda: client.adapters.history("chief")
        yield "alias", lambda: client.adapters.alias("chief", victim)
        yield "get", lambda: client.adapters.get(victim)
        yield "workers", client.workers
        yield "stats", lambda: client.stats(victim)
        yield "all_stats", client.all_stats
        yield "agent_stats", lambda: client.agent_stats("fuzz")
        yield "cost", client.cost
        yield "backlog", client.backlog
        yield "last_used", lambda: client.last_used(victim)
        yield "refusals", client.refusals
        yield "config", client.config
        yield "schedules", client.schedules.list
        yield "watched", client.schedules.watched
        yield "dead", client.upkeep.dead
        yield "fsck", client.upkeep.fsck
        for chore in (self._chores.schedule, self._chores.fsck, self._chores.dead_letters, self._chores.dead_workers):
            yield f"chore {chore.__name__}", chore

    async def _submitted(self, victim: str) -> None:
        job = await self._client.submit(victim, "Hi", agent="fuzz", max_new_tokens=2)
        await job.result(0.5)

    async def _streamed(self) -> None:
        job = await self._client.submit("by-1", "Tell me", agent="fuzz", max_new_tokens=4, stream=True)
        async for _ in job.stream(10):
            pass
