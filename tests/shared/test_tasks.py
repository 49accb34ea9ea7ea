"""Tasks end when they are told to, though something below swallows a cancellation."""

from __future__ import annotations

import asyncio

import pytest

from lorapool.shared.tasks import cancel_and_wait, cancellable


async def _deaf(seconds: float) -> None:
    """Swallows one cancellation, as a call of redis-py may on Python 3.11."""
    try:
        await asyncio.sleep(seconds)
    except asyncio.CancelledError:
        return


async def test_it_is_cancelled_until_it_ends() -> None:
    """A task that swallows its first cancellation and works on is cancelled again until it ends."""

    async def stubborn() -> None:
        await _deaf(60)
        await asyncio.sleep(60)

    tasks = [asyncio.create_task(stubborn()), asyncio.create_task(asyncio.sleep(60))]
    await asyncio.sleep(0.01)
    async with asyncio.timeout(5):
        await cancel_and_wait(*tasks)
    assert all(task.cancelled() for task in tasks)


async def test_what_has_ended_is_left_as_it_is() -> None:
    """A task that has its answer keeps it; and there may be nothing to end."""
    ended = asyncio.create_task(asyncio.sleep(0, "answer"))
    await ended
    await cancel_and_wait(ended)
    await cancel_and_wait()
    assert "answer" == ended.result()


async def test_a_cancellation_swallowed_below_is_raised() -> None:
    """Once the call that swallowed it has returned."""
    task = asyncio.create_task(cancellable(lambda: _deaf(60)))
    await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_one_from_before_the_call_does_not_count() -> None:
    """A task that cleans up after its own cancellation gets its answers."""
    answers: list[str] = []

    async def work() -> None:
        try:
            await asyncio.sleep(60)
        finally:
            answers.append(await cancellable(lambda: asyncio.sleep(0, "cleaned up")))

    task = asyncio.create_task(work())
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert ["cleaned up"] == answers
