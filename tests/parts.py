"""The parts of a pool over a Redis client that a test has, built in one line each.

A ``Queue`` is all three sides of a partition's queue as one, for tests that play client, worker and operator.
"""

from __future__ import annotations

from redis.asyncio import Redis

from lorapool.shared.catalog.catalog import Catalog
from lorapool.shared.connection import PoolConnection
from lorapool.shared.fleet.counters import Counters
from lorapool.shared.fleet.membership import Membership
from lorapool.shared.fleet.requests import WorkerRequests
from lorapool.shared.queue.client import ClientQueue
from lorapool.shared.queue.operator import OperatorQueue
from lorapool.shared.queue.worker import WorkerQueue
from lorapool.shared.server.terms import Terms


class Queue(ClientQueue, WorkerQueue, OperatorQueue):
    """One partition's, with its counters and requests; ``clock`` names the key that says the time."""

    def __init__(
        self,
        redis: Redis,
        pool: str = "default",
        clock: str | None = None,
        *,
        terms: Terms | None = None,
        partition: int = 0,
    ) -> None:
        self.connection = PoolConnection(redis, pool, clock=clock, terms=terms)
        self.members, bound = Membership(self.connection), self.connection.partition(partition)
        super().__init__(bound, self.members)
        self.counters, self.requests = Counters(bound), WorkerRequests(bound, self.members)

    async def close(self) -> None:
        """The client, too."""
        await self.connection.aclose()


def membership_of(redis: Redis, pool: str = "default", clock: str | None = None) -> Membership:
    return Membership(PoolConnection(redis, pool, clock=clock))


def catalog_of(redis: Redis, pool: str = "default", clock: str | None = None) -> Catalog:
    connection = PoolConnection(redis, pool, clock=clock)
    requests = WorkerRequests(connection.partition(), Membership(connection))
    return Catalog(connection, requests, lambda number: OperatorQueue(connection.partition(number)))
