"""Asking until Redis answers, and ending what asks."""

from __future__ import annotations

import asyncio

import pytest

from lorapool.shared.errors import RedisFull, RedisUnreachable, UnknownAdapter
from lorapool.shared.server import redis_retry as persistence
from lorapool.shared.server.redis_retry import persist, put_down


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(persistence, "FIRST_PAUSE_S", 0.0)


async def test_asks_until_answered() -> None:
    """A server that is away, then full, then back: the call gets its answer."""
    answers: list[Exception | int] = [RedisUnreachable("away"), RedisFull("full"), 7]

    async def call() -> int:
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    assert 7 == await persist(call, "test")


async def test_other_errors_pass() -> None:
    """An error that asking again cannot mend is not retried."""
    calls = 0

    async def call() -> None:
        nonlocal calls
        calls += 1
        raise UnknownAdapter("nobody")

    with pytest.raises(UnknownAdapter):
        await persist(call, "test")
    assert calls == 1


async def _deaf(seconds: float) -> None:
    """Swallows one cancellation, as a call of redis-py may on Python 3.11."""
    try:
        await asyncio.sleep(seconds)
    except asyncio.CancelledError:
        return


async def test_swallowed_cancellation_is_heeded() -> None:
    """A task that was cancelled while a call below swallowed it ends all the same."""

    async def forever() -> None:
        while True:
            await persist(lambda: _deaf(60), "test")

    task = asyncio.create_task(forever())
    await asyncio.sleep(0.01)
    task.cancel()
    await asyncio.wait([task], timeout=5)
    assert task.cancelled()


async def test_put_down_asks_again() -> None:
    """A task that swallows its first cancellation and works on is cancelled again until it ends."""

    async def stubborn() -> None:
        await _deaf(60)
        await asyncio.sleep(60)

    tasks = [asyncio.create_task(stubborn()), asyncio.create_task(asyncio.sleep(60))]
    await asyncio.sleep(0.01)
    async with asyncio.timeout(5):
        await put_down(tasks)
    assert all(task.cancelled() for task in tasks)


async def test_put_down_nothing() -> None:
    """There may be nothing to end."""
    await put_down([])
