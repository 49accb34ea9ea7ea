"""What the server wrapper adds to redis-py."""

import asyncio
from urllib.parse import urlsplit

import pytest
from fakeredis import FakeAsyncRedis

from lorapool.shared.server.redis_client import connect
from lorapool.shared.server.server import Server
from lorapool.shared.server.settings import redis_settings
from tests.chaos.proxy import FaultProxy


class Swallowing:
    """A client whose first command loses one cancellation, as redis-py may on Python 3.11."""

    def __init__(self) -> None:
        self.sent = asyncio.Event()

    async def execute_command(self, *_: object) -> bytes:
        self.sent.set()
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            return b"sent"
        return b"late"


async def test_a_swallowed_cancellation_still_cancels() -> None:
    """A caller cancelled while redis-py sends is cancelled, though the command returned."""
    client = Swallowing()
    task = asyncio.ensure_future(Server(client).command("PING"))
    await client.sent.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_cleaning_up_after_a_cancellation_may_use_the_server() -> None:
    """A command sent by a task that was cancelled before it does its work."""
    server = Server(FakeAsyncRedis())
    answers: list[object] = []

    async def work() -> None:
        try:
            await asyncio.sleep(60)
        finally:
            answers.append(await server.command("SET", "cleaned", "up"))

    task = asyncio.ensure_future(work())
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert [True] == answers


async def test_one_silent_connection_costs_one_timeout(redis_url: str) -> None:
    """When connections go unanswered, the second try meets a fresh one: a command loses one timeout, not one for each
    idle connection."""
    async with FaultProxy(urlsplit(redis_url).port or 0) as proxy:
        client = connect(redis_settings(proxy.url).model_copy(update={"socket_timeout_s": 0.5}))
        server = Server(client, pauses_s=(0.0,))
        await asyncio.gather(*(server.command("CLIENT", "PAUSE", 50) for _ in range(6)))
        proxy.fall_silent()
        assert await server.command("PING")
        assert await server.command("PING")
        await client.aclose()
