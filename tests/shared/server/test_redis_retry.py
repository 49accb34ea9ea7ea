"""Asking until Redis answers."""

from __future__ import annotations

import asyncio

import pytest

from lorapool.shared import backoff
from lorapool.shared.errors import RedisFull, RedisUnreachable, UnknownAdapter
from lorapool.shared.server.redis_retry import retry


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backoff, "FIRST_S", 0.0)


async def test_asks_until_answered() -> None:
    """A server that is away, then full, then back: the call gets its answer."""
    answers: list[Exception | int] = [RedisUnreachable("away"), RedisFull("full"), 7]

    async def call() -> int:
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    assert 7 == await retry(call, "test")


async def test_other_errors_pass() -> None:
    """An error that asking again cannot mend is not retried."""
    calls = 0

    async def call() -> None:
        nonlocal calls
        calls += 1
        raise UnknownAdapter("nobody")

    with pytest.raises(UnknownAdapter):
        await retry(call, "test")
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
            await retry(lambda: _deaf(60), "test")

    task = asyncio.create_task(forever())
    await asyncio.sleep(0.01)
    task.cancel()
    await asyncio.wait([task], timeout=5)
    assert task.cancelled()
