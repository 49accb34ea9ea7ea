"""When a worker claims, over a scripted queue: what it asks for, repeats, and waits for."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest

from lorapool.shared import backoff
from lorapool.shared.errors import RedisUnreachable
from lorapool.shared.queue.protocol import Claim, ClaimedJob, View, WaitingAdapter
from lorapool.shared.tasks import cancel_and_wait
from lorapool.worker.adapters.not_here import NotHere
from lorapool.worker.engine.port import Request, Residency, Sampling
from lorapool.worker.loop import claimer
from lorapool.worker.loop.affinity import Policy
from lorapool.worker.loop.claimer import Claimer
from lorapool.worker.loop.clock import ServerClock
from lorapool.worker.loop.held_jobs import HeldJob, HeldJobs
from lorapool.worker.text.answer import Answer
from tests.fake_tokenizer import WordDetokenizer

NOW = 1_000_000


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backoff, "FIRST_S", 0.0)
    for name in ("TICK_S", "BLOCKED_S", "IDLE_S"):
        monkeypatch.setattr(claimer, name, 0.05)


def view(*refs: str, since_s: float = 1, suspects: int = 0, apart: bool = False) -> View:
    since = NOW - round(since_s * 1000)
    waiting = tuple(WaitingAdapter(ref, since, 5, 0.0) for ref in refs)
    return View(NOW, waiting, None, len(waiting), apart, suspects)


def job(job_id: str, ref: str) -> ClaimedJob:
    return ClaimedJob(job_id, "lease", ref, "d", "agent", 1, 0, 1, 7, NOW, NOW, None, b"")


class ScriptedBroker:
    """Answers claims and ticks from lists; the last answer stays. An exception in a list is raised."""

    def __init__(self, ticks: list[Any], claims: list[Any]) -> None:
        self.ticks, self.claims = ticks, claims
        self.asked: list[tuple[str, tuple[str, ...], int]] = []
        self.ticked = self.waited = self.listened = 0
        self.signals = False

    async def tick(self, _worker: str, _residents: Sequence[str] = ()) -> View:
        self.ticked += 1
        return _next(self.ticks)

    async def claim(self, _worker: str, lease: str, preferences: Sequence[str], n: int, *_: Any, **__: Any) -> Claim:
        self.asked.append((lease, tuple(preferences), n))
        return _next(self.claims)

    async def wait_for_work(self, _worker: str, timeout_s: float, *, own: bool = False) -> bool:
        self.listened, self.waited = self.listened + own, self.waited + (not own)
        await asyncio.sleep(0 if self.signals else timeout_s)
        return self.signals


def _next(answers: list[Any]) -> Any:
    answer = answers.pop(0) if len(answers) > 1 else answers[0]
    if isinstance(answer, Exception):
        raise answer
    return answer


def made(
    queue: ScriptedBroker,
    *,
    rows: int = 4,
    slots: int = 2,
    resident: frozenset[str] = frozenset(),
    not_here: NotHere | None = None,
) -> Any:
    jobs = HeldJobs()
    claims = Claimer(
        queue,  # type: ignore[arg-type]  # a fake of what it uses
        jobs,
        ServerClock(),
        Policy(),
        lambda: Residency(resident, frozenset(), frozenset()),
        not_here or NotHere(),
        worker="w1",
        boot_id="boot",
        lease_ms=1000,
        rows=rows,
        slots=slots,
    )
    return claims, jobs


def hold(jobs: HeldJobs, claimed: ClaimedJob) -> None:
    request = Request(claimed.job_id, claimed.ref, [1], Sampling(9))
    jobs.add(HeldJob(claimed, request, Answer(WordDetokenizer()), stream=False))


async def test_looks_then_claims() -> None:
    """A fresh worker first looks, then claims what it saw, for as many rows as are free."""
    queue = ScriptedBroker([view("a@1")], [Claim((job("0.1", "a@1"),), view())])
    claims, _ = made(queue)
    assert () == await claims.claim()
    assert (job("0.1", "a@1"),) == await claims.claim()
    assert [("boot.1", ("a@1",), 4)] == queue.asked


async def test_lost_reply_is_asked_for_again() -> None:
    """After a lost reply the claim is repeated under the same lease, so that what it took is not lost."""
    queue = ScriptedBroker([view("a@1")], [RedisUnreachable("cut"), Claim((job("0.1", "a@1"),), view("a@1"))])
    claims, _ = made(queue)
    await claims.claim()
    await claims.claim()
    await claims.claim()
    assert ["boot.1", "boot.1", "boot.2"] == [lease for lease, _, _ in queue.asked]


async def test_full_worker_ticks() -> None:
    """A worker without free rows claims nothing, but still does the server's chores."""
    queue = ScriptedBroker([view("a@1")], [Claim((), view())])
    claims, jobs = made(queue, rows=1)
    hold(jobs, job("0.1", "a@1"))
    for _ in range(3):
        assert () == await claims.claim()
    assert ([], 3, 0) == (queue.asked, queue.ticked, queue.waited)


async def test_idle_worker_sleeps_on_the_marker() -> None:
    """With nothing to claim, a worker waits for the wake marker rather than asking again and again."""
    queue = ScriptedBroker([view()], [Claim((), view())])
    claims, _ = made(queue)
    for _ in range(3):
        assert () == await claims.claim()
    assert (2, 3) == (queue.waited, queue.ticked)


async def test_blocked_worker_leaves_the_marker_to_others() -> None:
    """A worker that has rows but no slot for what waits does not take the wake-up of one that has."""
    queue = ScriptedBroker([view("b@1")], [Claim((), view())])
    claims, jobs = made(queue, slots=1)
    hold(jobs, job("0.1", "a@1"))
    for _ in range(3):
        assert () == await claims.claim()
    assert ([], 0) == (queue.asked, queue.waited)


async def test_a_worker_apart_hears_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker that leaves what waits to others asks at once for what it holds when such a job comes."""
    monkeypatch.setattr(claimer, "BLOCKED_S", 60.0)
    queue = ScriptedBroker([view("b@1")], [Claim((), view("b@1"))])
    queue.signals = True
    claims, jobs = made(queue, slots=1)
    hold(jobs, job("0.1", "a@1"))
    await claims.claim()
    listening = asyncio.create_task(claims.listen())
    async with asyncio.timeout(2):
        await claims.claim()
    await cancel_and_wait(listening)
    assert (["_base", "a@1"], 0) == ([ref for _, refs, _ in queue.asked for ref in refs], queue.waited)


async def test_stop_ends_the_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    """A sleeping claimer returns at once when told to stop, and claims no more."""
    monkeypatch.setattr(claimer, "IDLE_S", 60.0)
    queue = ScriptedBroker([view()], [Claim((), view())])
    claims, _ = made(queue)
    await claims.claim()
    waiting = asyncio.create_task(claims.claim())
    await asyncio.sleep(0.02)
    claims.stop()
    async with asyncio.timeout(2):
        assert () == await waiting
    queue.ticks = [view("a@1")]
    assert () == await claims.claim()
    assert [] == queue.asked


async def test_suspect_is_taken_by_an_empty_worker_only() -> None:
    """A job whose worker vanished is claimed by a worker that holds nothing, though no adapter is ready."""
    queue = ScriptedBroker([view(suspects=1)], [Claim((job("0.1", "a@1"),), view(suspects=1))])
    claims, jobs = made(queue)
    await claims.claim()
    assert (job("0.1", "a@1"),) == await claims.claim()
    hold(jobs, job("0.1", "a@1"))
    await claims.claim()
    assert 1 == len(queue.asked)


async def test_a_worker_that_is_to_run_dry_claims_nothing() -> None:
    """Told to go apart, it leaves what waits to others, looks each second, and takes suspects once it holds nothing."""
    queue = ScriptedBroker([view("a@1", suspects=1, apart=True)], [Claim((job("0.9", "b@1"),), view("a@1"))])
    claims, jobs = made(queue, resident=frozenset({"a@1"}))
    hold(jobs, job("0.1", "a@1"))
    for _ in range(3):
        assert () == await claims.claim()
    assert ([], 3) == (queue.asked, queue.ticked)
    jobs.drop(next(iter(jobs)))
    assert (job("0.9", "b@1"),) == await claims.claim()


async def test_what_stirs_during_a_look_is_not_slept_through(monkeypatch: pytest.MonkeyPatch) -> None:
    """The look did not see it: the next one follows at once."""
    monkeypatch.setattr(claimer, "TICK_S", 60.0)
    queue = ScriptedBroker([view(apart=True), view(suspects=1)], [Claim((job("0.1", "a@1"),), view())])
    claims, _ = made(queue)
    look = queue.tick

    async def stirred(worker: str, residents: Sequence[str] = ()) -> View:
        if not queue.ticked:
            claims.wake()
        return await look(worker, residents)

    monkeypatch.setattr(queue, "tick", stirred)
    async with asyncio.timeout(5):
        assert [(), (), (job("0.1", "a@1"),)] == [await claims.claim() for _ in range(3)]


async def test_what_is_not_here_is_left_to_others() -> None:
    """It is neither preferred nor guessed, and the server is told, until its while is over."""
    not_here = NotHere()
    not_here.note("a@1", "no such folder")
    queue = ScriptedBroker([view("a@1", "b@1"), view()], [Claim((), view())])
    claims, _ = made(queue, resident=frozenset({"a@1", "b@1"}), not_here=not_here)
    await claims.claim()
    await claims.claim()
    queue.signals = True
    await claims.claim()
    assert [("b@1",), ("_base", "b@1")] == [preferred for _, preferred, _ in queue.asked]
    assert "-a@1" in claims._resident()
    not_here.reached("a@1")
    assert "-a@1" not in claims._resident()


async def test_woken_worker_claims_unseen() -> None:
    """Work that is signalled to an idle worker is asked for by name at once; the claim also tells what else waits."""
    queue = ScriptedBroker([view()], [Claim((job("0.1", "a@1"),), view("b@1"))])
    queue.signals = True
    claims, _ = made(queue, resident=frozenset({"a@1"}))
    assert () == await claims.claim()
    assert (job("0.1", "a@1"),) == await claims.claim()
    assert [("boot.1", ("_base", "a@1"), 4)] == queue.asked
    await claims.claim()
    assert ("boot.2", ("b@1",), 4) == queue.asked[-1]
    assert 1 == queue.ticked
