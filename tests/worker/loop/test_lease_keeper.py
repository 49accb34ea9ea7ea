"""What a renewal tells, and what becomes of it."""

from __future__ import annotations

from typing import Any

from lorapool.shared.queue.protocol import ClaimedJob, Renewed
from lorapool.worker.engine.port import Request, Sampling
from lorapool.worker.loop.clock import ServerClock
from lorapool.worker.loop.held_jobs import HeldJob, HeldJobs
from lorapool.worker.loop.lease_keeper import LeaseKeeper
from lorapool.worker.text.answer import Answer
from tests.fake_tokenizer import WordDetokenizer

NOW_MS = 1_800_000_000_000


class Server:
    """A queue that answers each renewal with the same."""

    def __init__(self, renewed: Renewed) -> None:
        self.renewed = renewed

    async def renew(self, *_: object) -> Renewed:
        return self.renewed


class Endings:
    """A settler that writes down what it should settle."""

    def __init__(self) -> None:
        self.closed: dict[str, str] = {}
        self.lost: list[str] = []

    async def close(self, job: HeldJob, outcome: str, *, message: str) -> None:
        assert message
        self.closed[job.job_id] = outcome

    async def cancel(self, job: HeldJob) -> None:
        self.closed[job.job_id] = "cancelled"

    def drop_lost(self, job_ids: tuple[str, ...]) -> None:
        self.lost += job_ids


def held(job_id: str, deadline_ms: int | None) -> HeldJob:
    claimed = ClaimedJob(job_id, "L", "_base", "", "ada", 1, 0, 1, 7, NOW_MS, NOW_MS, deadline_ms, b"")
    request = Request(job_id, "_base", [1], Sampling(9))
    return HeldJob(claimed, request, Answer(WordDetokenizer()), stream=False)


async def renewed(answer: Renewed) -> Endings:
    jobs, endings, clock = HeldJobs(), Endings(), ServerClock(lambda: 0.0)
    clock.observe(NOW_MS)  # behind the server's: its last answer is long ago, or was long on its way
    for job_id in ("0.lost", "0.cancelled", "0.overdue", "0.runs"):
        jobs.add(held(job_id, NOW_MS + 1_000 if job_id == "0.overdue" else None))
    queue: Any = Server(answer)
    settler: Any = endings
    await LeaseKeeper(queue, jobs, settler, clock, lease_ms=15_000).renew()
    return endings


async def test_a_renewal_tells_each_job_why_it_must_stop() -> None:
    """Cancelled and overdue ones end as what they are, also while our clock is behind; lost ones are dropped."""
    endings = await renewed(Renewed(lost=("0.lost",), cancelled=("0.cancelled",), overdue=("0.overdue",)))
    assert {"0.cancelled": "cancelled", "0.overdue": "expired"} == endings.closed
    assert ["0.lost"] == endings.lost


async def test_a_renewal_that_tells_nothing_changes_nothing() -> None:
    endings = await renewed(Renewed((), ()))
    assert ({}, []) == (endings.closed, endings.lost)
