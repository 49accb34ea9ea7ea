"""What the engine reported, as it reaches the queue: deltas, ends, what is given back and what is lost."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import Any

import pytest

from lorapool.shared.codec import Detail, decode_detail
from lorapool.shared.errors import AdapterUnavailable, InvalidRequest
from lorapool.shared.job import FinishReason, TokenLogprob
from lorapool.shared.queue.protocol import ClaimedJob, Delta, JobLease, Settled, Settlement
from lorapool.worker.adapters.not_here import NotHere
from lorapool.worker.engine.port import EngineDown, Lost, Report, Request, Sampling, Start, Update
from lorapool.worker.loop.clock import ServerClock
from lorapool.worker.loop.held_jobs import HeldJob, HeldJobs
from lorapool.worker.loop.settler import Settler
from lorapool.worker.text.answer import Answer
from lorapool.worker.text.told_tokens import ToldTokens
from tests.fake_tokenizer import WordDetokenizer, WordSpelling
from tests.fleet import until


class Book:
    """A queue that remembers. ``stale``: jobs whose lease is lost; ``unwritable``: those that it cannot take."""

    def __init__(self) -> None:
        self.deltas: list[Delta] = []
        self.ends: list[Settlement] = []
        self.calls: list[int] = []
        self.released: list[JobLease] = []
        self.lost: list[JobLease] = []
        self.stale: set[str] = set()
        self.unwritable: set[str] = set()

    async def emit(self, deltas: Sequence[Delta]) -> list[str]:
        self.deltas += deltas
        return [delta.job_id for delta in deltas if delta.job_id in self.stale]

    async def settle(self, settlements: Sequence[Settlement]) -> list[Settled]:
        self.calls.append(len(settlements))
        if self.unwritable & {one.job_id for one in settlements if one.error != "Unwritable"}:
            raise ValueError("no key can be written so")
        self.ends += settlements
        return [
            Settled(one.job_id, "stale" if one.job_id in self.stale else "settled", one.outcome) for one in settlements
        ]

    async def release(self, leases: Sequence[JobLease]) -> None:
        self.released += leases

    async def lose(self, leases: Sequence[JobLease]) -> None:
        self.lost += leases


class Room:
    """A settler, what it holds and what it told the engine."""

    def __init__(self) -> None:
        self.book, self.jobs, self.aborted = Book(), HeldJobs(), list[tuple[str, bool]]()
        self.not_here, self.clock = NotHere(), ServerClock(lambda: 0.0)
        self.clock.observe(500)
        queue: Any = self.book
        engine: Any = self
        self.settler = Settler(queue, self.jobs, engine, self.clock, self.not_here, device="d", dtype="t")

    def abort(self, seq_id: str, *, finished: bool = False) -> None:
        self.aborted.append((seq_id, finished))

    def hold(
        self, job_id: str, *, stop: tuple[str, ...] = (), stream: bool = False, ref: str = "a@1", logprobs: bool = False
    ) -> HeldJob:
        claimed = ClaimedJob(job_id, f"L{job_id}", ref, "", "ada", 1, 0, 1, 7, 100, 110, None, b"")
        request = Request(f"{job_id}:1", ref, [1, 2], Sampling(9, logprobs=logprobs))
        answer, told = Answer(WordDetokenizer(), stop), ToldTokens(WordSpelling()) if logprobs else None
        self.jobs.add(job := HeldJob(claimed, request, answer, stream=stream, told=told))
        return job

    async def reports(self, *updates: Update) -> None:
        await self.settler.publish(Report(updates=list(updates)))

    async def settled(self) -> dict[str, Settlement]:
        await until(lambda: not len(self.jobs))
        self.jobs.check_integrity()
        return {one.job_id: one for one in self.book.ends}


@pytest.fixture
async def room() -> AsyncIterator[Room]:
    made = Room()
    settling = asyncio.create_task(made.settler.settle_ended())
    yield made
    settling.cancel()
    await asyncio.wait([settling])


async def test_an_answer_is_settled_with_all_that_came_of_it(room: Room) -> None:
    """Text, tokens, times, what it took to load, where it ran; the engine is not told of an end that it knows."""
    room.hold("j", logprobs=True)
    await room.settler.publish(Report([Start("j:1", 40, resident=False)], [Update("j:1", (4,), 0, logprobs=(-1.0,))]))
    await room.reports(Update("j:1", (5,), 1, FinishReason.LENGTH, logprobs=(-2.0,)))
    end = (await room.settled())["j"]
    assert ("succeeded", "4 5 ", "length", 2, 2) == (
        end.outcome, end.text, end.finish_reason, end.prompt_tokens, end.completion_tokens
    )  # fmt: skip
    assert (500, 40, False, "d", "t", "Lj") == (
        end.first_token_ms, end.load_ms, end.resident, end.device, end.dtype, end.lease
    )  # fmt: skip
    told = tuple(TokenLogprob(id=at, text=f"{at} ".encode(), logprob=3.0 - at) for at in (4, 5))
    assert Detail((4, 5), (-1.0, -2.0), told) == decode_detail(end.detail)
    assert [] == room.aborted


async def test_log_probabilities_are_stored_where_they_were_asked_for(room: Room) -> None:
    """Not otherwise: they are most of a record."""
    room.hold("j")
    await room.reports(Update("j:1", (4,), 0, FinishReason.LENGTH))
    assert Detail((4,)) == decode_detail((await room.settled())["j"].detail)


async def test_a_stop_string_ends_the_sequence_in_the_engine(room: Room) -> None:
    """Once; what the engine computes until it hears of it is neither counted nor shown."""
    room.hold("j", stop=("5 6",), stream=True)
    await room.reports(Update("j:1", (4, 5), 0, logprobs=(-1.0, -1.0)))
    await room.reports(Update("j:1", (6, 7), 2, logprobs=(-1.0, -1.0)))
    await room.reports(Update("j:1", (8,), 4, logprobs=(-1.0,)))
    end = (await room.settled())["j"]
    assert ("succeeded", "stop_sequence", "4 ", 3) == (end.outcome, end.finish_reason, end.text, end.completion_tokens)
    assert [("j:1", True)] == room.aborted
    assert [(0, "4 ", (4, 5)), (2, "", (6,))] == [(one.offset, one.text, one.token_ids) for one in room.book.deltas]


async def test_a_token_without_text_ends_its_job_only(room: Room) -> None:
    """It may pass: tried again; the engine is told, and not that it was finished."""

    class Broken(WordDetokenizer):
        def push(self, token_id: int) -> str:
            raise ValueError(f"no text for {token_id}")

    room.hold("bad").answer = Answer(Broken())
    room.hold("good")
    await room.reports(Update("bad:1", (1,), 0), Update("good:1", (1,), 0, FinishReason.EOS_TOKEN))
    ends = await room.settled()
    assert ("retry", "ValueError", "no text for 1") == (ends["bad"].outcome, ends["bad"].error, ends["bad"].message)
    assert "succeeded" == ends["good"].outcome
    assert [("bad:1", False)] == room.aborted


async def test_one_report_is_one_emit_and_one_settlement(room: Room) -> None:
    """Whatever it says of however many jobs."""
    for number in range(5):
        room.hold(f"j{number}", stream=True)
    await room.reports(*(Update(f"j{number}:1", (1,), 0, FinishReason.EOS_TOKEN) for number in range(5)))
    await room.settled()
    assert (5, [5]) == (len(room.book.deltas), room.book.calls)


async def test_who_lost_the_lease_writes_no_more(room: Room) -> None:
    """A delta that is refused as stale drops the job, and its sequence leaves the engine."""
    room.hold("gone", stream=True)
    room.book.stale = {"gone"}
    await room.reports(Update("gone:1", (1,), 0))
    await room.reports(Update("gone:1", (2,), 1, FinishReason.EOS_TOKEN))
    assert {} == await room.settled()
    assert [("gone:1", False)] == room.aborted


async def test_what_cannot_run_here_goes_to_others(room: Room) -> None:
    """No attempt burnt where the adapter is not to be had, or the engine was away; the adapter is noted."""
    missing, down = room.hold("missing", ref="far@1"), room.hold("down")
    await room.reports(
        Update("missing:1", error=AdapterUnavailable("no such mount")), Update("down:1", error=EngineDown("away"))
    )
    assert {} == await room.settled()
    assert [missing.lease, down.lease] == room.book.released
    assert "far@1" in room.not_here
    assert "a@1" not in room.not_here


async def test_a_lost_engine_costs_what_it_was_busy_with(room: Room) -> None:
    """Those are lost as with a worker's death; the others inside go back unburnt, those outside stay."""
    busy, inside, outside = room.hold("busy"), room.hold("inside"), room.hold("outside")
    await room.settler.give_up(Lost("died", "SIGKILL", frozenset({"busy:1", "inside:1"}), frozenset({"busy:1"})))
    assert ([busy.lease], [inside.lease]) == (room.book.lost, room.book.released)
    assert [outside] == list(room.jobs)


async def test_an_end_that_cannot_be_written_takes_no_other_with_it(room: Room) -> None:
    """It fails for that, by a constant reason."""
    for name in ("a", "b", "c"):
        room.hold(name)
    room.book.unwritable = {"b"}
    await room.reports(*(Update(f"{name}:1", (1,), 0, FinishReason.EOS_TOKEN) for name in "abc"))
    ends = await room.settled()
    assert {"a": "succeeded", "b": "failed", "c": "succeeded"} == {name: end.outcome for name, end in ends.items()}
    assert "Unwritable" == ends["b"].error


async def test_only_one_end_is_written(room: Room) -> None:
    """A job that was cancelled while its last report was on its way ends once."""
    job = room.hold("j")
    await room.settler.cancel(job)
    await room.reports(Update("j:1", (1,), 0, FinishReason.EOS_TOKEN))
    await room.settler.refuse(job.claimed, InvalidRequest("too late for this"))
    assert ["cancelled", "failed"] == [end.outcome for end in room.book.ends]  # the second: the server refuses it
    assert [("j:1", False)] == room.aborted
