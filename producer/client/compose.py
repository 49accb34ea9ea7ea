"""The parts of a client: what a client is made of, built in one place, each with what it needs of the others.

The composition root of an agent's process: only here are settings read and a connection opened. Nothing is asked of the
server yet.
"""

from __future__ import annotations

from dataclasses import dataclass

from pydantic import ValidationError

from lorapool.producer.client.adapters import Adapters
from lorapool.producer.client.home import Home, at_home
from lorapool.producer.client.inbox import Inbox
from lorapool.producer.client.outbox import Outbox
from lorapool.producer.client.schedules import Schedules
from lorapool.producer.client.sender import Sender
from lorapool.producer.operator.upkeep import PoolUpkeep
from lorapool.shared.access.audit import Audit
from lorapool.shared.access.key_book import KeyBook
from lorapool.shared.access.sessions import Sessions
from lorapool.shared.batches.batch_book import BatchBook
from lorapool.shared.batches.file_book import FileBook
from lorapool.shared.catalog.catalog import Catalog
from lorapool.shared.connection import PoolConnection
from lorapool.shared.errors import InvalidRequest
from lorapool.shared.fleet.counters import Counters
from lorapool.shared.fleet.history import History
from lorapool.shared.fleet.membership import Membership
from lorapool.shared.fleet.requests import WorkerRequests
from lorapool.shared.queue.client import ClientQueue
from lorapool.shared.queue.onlooker import Onlooker
from lorapool.shared.queue.operator import OperatorQueue
from lorapool.shared.responses.responses import Responses
from lorapool.shared.server.redis_client import connect
from lorapool.shared.server.settings import RedisSettings, redis_settings
from lorapool.shared.timetable.chores import ChoreBook
from lorapool.shared.timetable.timetable import Timetable
from lorapool.shared.wire import explain_validation


@dataclass(frozen=True, slots=True)
class Parts:
    """One client's. ``queue``, ``operators`` and ``counters`` are those of the pool's only partition."""

    settings: RedisSettings
    home: Home
    connection: PoolConnection
    queue: ClientQueue
    operators: OperatorQueue
    counters: Counters
    members: Membership
    catalog: Catalog
    inbox: Inbox
    outbox: Outbox
    sender: Sender
    adapters: Adapters
    upkeep: PoolUpkeep
    schedules: Schedules
    history: History
    onlooker: Onlooker
    responses: Responses
    files: FileBook
    batches: BatchBook
    keys: KeyBook
    audit: Audit
    sessions: Sessions


def compose(redis_url: str | None, pool: str | None, *, agent: str, client: str) -> Parts:
    """``agent``: who jobs are counted under where nobody is named; ``client``: whose inbox hears of their ends.

    Raises InvalidRequest for settings that are none.
    """
    settings, home = _settings(redis_url, pool), Home()
    connection = _opened(settings, home)
    partition = connection.partition()
    members, counters = Membership(connection), Counters(partition)
    queue, operators = ClientQueue(partition, members), OperatorQueue(partition)
    catalog = Catalog(connection, WorkerRequests(partition, members), lambda _: operators)
    adapters = Adapters(catalog, members, operators, settings.pool)
    inbox, outbox = Inbox(queue, client, home), Outbox(queue, home)
    keys = KeyBook(connection)
    return Parts(
        settings,
        home,
        connection,
        queue,
        operators,
        counters,
        members,
        catalog,
        inbox,
        outbox,
        sender=Sender(queue, adapters, inbox, outbox, agent, client),
        adapters=adapters,
        upkeep=PoolUpkeep(operators, adapters.ref),
        schedules=Schedules(Timetable(connection), ChoreBook(connection), queue, adapters, agent),
        history=History(connection),
        onlooker=Onlooker(partition),
        responses=Responses(partition),
        files=FileBook(connection),
        batches=BatchBook(connection),
        keys=keys,
        audit=Audit(partition),
        sessions=Sessions(connection, keys),
    )


def _settings(redis_url: str | None, pool: str | None) -> RedisSettings:
    try:
        return redis_settings(redis_url, pool)
    except ValidationError as error:
        raise InvalidRequest(explain_validation(error)) from None


def _opened(settings: RedisSettings, home: Home) -> PoolConnection:
    """Its connections are used at ``home`` alone."""
    try:
        redis = connect(settings)
    except ValueError as error:
        raise InvalidRequest(f"redis_url = {settings.redacted_url!r}: {error}") from None
    sockets = redis.connection_pool
    sockets.connection_class = at_home(sockets.connection_class, home)
    return PoolConnection(redis, settings.pool)
