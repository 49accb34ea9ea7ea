"""Outbox: what is submitted at the same time leaves together, and each job has its own outcome."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from lorapool.producer.client.home import Home
from lorapool.producer.client.outbox import BATCH, Outbox
from lorapool.shared.errors import ClientClosed, Fate, QueueFull, RedisUnreachable
from lorapool.shared.job import Job, JobState
from lorapool.shared.queue.protocol import Enqueued


def job(number: int) -> Job:
    return Job.parse(id=f"job{number}", ref="_base", agent="a", prompt="hi", client="c")


def accepted(one: Job) -> Enqueued:
    return Enqueued(f"0.{one.id}", JobState.QUEUED, created=True)


class FakeQueue:
    """Each call waits until it is let through, and answers ``outcomes``, or else that all are accepted."""

    def __init__(self) -> None:
        self.calls: list[list[str]] = []
        self.open = asyncio.Event()
        self.outcomes: dict[str, Exception] = {}
        self.breaks: Exception | None = None

    async def enqueue_many(self, jobs: Sequence[Job]) -> list[Enqueued | Exception]:
        self.calls.append([one.id for one in jobs])
        await self.open.wait()
        if self.breaks is not None:
            raise self.breaks
        return [self.outcomes.get(one.id) or accepted(one) for one in jobs]

    def full_id(self, job_id: str) -> str:
        return f"0.{job_id}"


@pytest.fixture
def queue() -> FakeQueue:
    return FakeQueue()


@pytest.fixture
async def outbox(queue: FakeQueue) -> Outbox:
    home = Home()
    home.check()
    return Outbox(queue, home)


def submitted(outbox: Outbox, *numbers: int) -> list[asyncio.Task[Enqueued]]:
    return [asyncio.create_task(outbox.enqueue(job(number))) for number in numbers]


async def settled() -> None:
    """Everything that can go on has done so."""
    for _ in range(10):
        await asyncio.sleep(0)


async def test_a_lone_job_leaves_at_once_and_the_others_together(outbox: Outbox, queue: FakeQueue) -> None:
    """One call is on its way; what is submitted meanwhile is the next call, in order."""
    first = submitted(outbox, 0)
    await settled()
    assert [["job0"]] == queue.calls
    later = submitted(outbox, 1, 2, 3)
    await settled()
    assert [["job0"]] == queue.calls
    queue.open.set()
    answers = await asyncio.gather(*first, *later)
    assert [["job0"], ["job1", "job2", "job3"]] == queue.calls
    assert ["0.job0", "0.job1", "0.job2", "0.job3"] == [answer.job_id for answer in answers]


async def test_a_call_has_a_bound(outbox: Outbox, queue: FakeQueue) -> None:
    """More than a call may carry are several calls, none of them over the bound."""
    queue.open.set()
    await asyncio.gather(*submitted(outbox, *range(BATCH + 5)))
    assert [BATCH, 5] == [len(call) for call in queue.calls]


async def test_a_refusal_is_of_its_own_job(outbox: Outbox, queue: FakeQueue) -> None:
    """The others of the call are accepted."""
    queue.outcomes["job1"] = QueueFull("full", scope="pool", depth=1, limit=1, retry_after_s=0.5)
    queue.open.set()
    good, refused, also_good = await asyncio.gather(*submitted(outbox, 0, 1, 2), return_exceptions=True)
    assert isinstance(refused, QueueFull)
    assert [accepted(job(0)), accepted(job(2))] == [good, also_good]


async def test_who_gave_up_waiting_is_not_sent(outbox: Outbox, queue: FakeQueue) -> None:
    """A submission cancelled before its call has left stays here; the next one works."""
    first, second, third = submitted(outbox, 0, 1, 2)
    await settled()  # all three are in one call, unless the first left alone
    sent_before = [name for call in queue.calls for name in call]
    late = submitted(outbox, 3, 4)
    await settled()
    late[0].cancel()
    await settled()
    queue.open.set()
    await asyncio.gather(first, second, third, late[1])
    assert ["job0", "job1", "job2"] == sent_before
    assert ["job4"] == queue.calls[-1]


async def test_a_lost_call_says_what_became_of_whom(outbox: Outbox, queue: FakeQueue) -> None:
    """Those on their way may be queued or not; those behind them surely are not. Each names its own job."""
    queue.breaks = RedisUnreachable("the server went away")
    on_their_way = submitted(outbox, 0)
    await settled()
    behind = submitted(outbox, 1)
    await settled()
    queue.open.set()
    first, second = await asyncio.gather(*on_their_way, *behind, return_exceptions=True)
    assert isinstance(first, RedisUnreachable)
    assert isinstance(second, RedisUnreachable)
    assert [("0.job0", Fate.UNKNOWN), ("0.job1", Fate.NOT_QUEUED)] == [
        (error.job_id, error.fate) for error in (first, second)
    ]


async def test_closing_ends_every_submission(outbox: Outbox, queue: FakeQueue) -> None:
    """Nothing more is sent, nobody waits for ever, and each hears whether its job may be queued."""
    on_its_way = submitted(outbox, 0)
    await settled()
    behind = submitted(outbox, 1)
    await settled()
    await outbox.close()
    first, second = await asyncio.gather(*on_its_way, *behind, return_exceptions=True)
    assert [["job0"]] == queue.calls
    assert isinstance(first, ClientClosed)
    assert isinstance(second, ClientClosed)
    assert (Fate.UNKNOWN, Fate.NOT_QUEUED) == (first.fate, second.fate)


async def test_it_works_on_after_a_lost_call(outbox: Outbox, queue: FakeQueue) -> None:
    queue.open.set()
    queue.breaks = RedisUnreachable("the server went away")
    with pytest.raises(RedisUnreachable):
        await outbox.enqueue(job(0))
    queue.breaks = None
    assert accepted(job(1)) == await outbox.enqueue(job(1))
