"""Onlooker: looks at the queue that cost the same however much is in it."""

from __future__ import annotations

from lorapool.shared.queue.onlooker import LONGEST, Onlooker, RefDepth, WaitingRef
from tests.shared.conftest import START_MS, Bench


def onlooker(bench: Bench) -> Onlooker:
    return Onlooker(bench.queue.connection.partition())


async def test_glance_counts_what_waits_and_runs(bench):
    """Waiting, running and delayed jobs, dead letters, and the adapter whose job has waited longest first."""
    await bench.enqueue()
    await bench.claim()
    await bench.set_clock(START_MS + 1_000)
    await bench.enqueue()
    await bench.enqueue(delay_ms=60_000)
    await bench.set_clock(START_MS + 2_000)
    await bench.enqueue("ceo@1")
    glance = await onlooker(bench).glance()
    assert (2, 1, 1, 0, 2) == (glance.waiting, glance.running, glance.delayed, glance.dead, glance.backlogged)
    assert (WaitingRef("cfo@1", 1, START_MS + 1_000), WaitingRef("ceo@1", 1, START_MS + 2_000)) == glance.longest


async def test_glance_of_an_empty_pool(bench):
    """Nothing waits, and so nothing has waited."""
    glance = await onlooker(bench).glance()
    assert (0, 0, None, ()) == (glance.waiting, glance.running, glance.oldest_wait_ms, glance.longest)


async def test_glance_tells_of_few_adapters(bench):
    """However many have backlog, only the first are told of; the count has all."""
    refs = [f"a{number}@1" for number in range(LONGEST + 8)]
    for ref in refs:
        await bench.queue.open_adapter(ref, "ab" * 32)
        await bench.enqueue(ref)
    glance = await onlooker(bench).glance()
    assert (LONGEST, LONGEST + 8) == (len(glance.longest), glance.backlogged)


async def test_jobs_that_run_and_wait(bench):
    """Each in short, by full id; those that wait in the order in which they came, whatever their lane."""
    running = await bench.enqueue(agent="board-7")
    await bench.set_clock(START_MS + 400)
    await bench.claim()
    first = await bench.enqueue(priority="low")
    await bench.set_clock(START_MS + 500)
    second = await bench.enqueue(priority="high")
    [seen] = await onlooker(bench).running()
    assert (running, "running", "cfo@1") == (seen.job_id, seen.state, seen.ref)
    assert ("board-7", "w1") == (seen.agent, seen.worker)
    assert (400, 1) == (seen.waited_ms, seen.attempts)
    assert [first, second] == [job.job_id for job in await onlooker(bench).waiting("cfo@1")]
    assert [first] == [job.job_id for job in await onlooker(bench).waiting("cfo@1", 1)]


async def test_delayed_jobs(bench):
    """The next due first, and their wait begins when they are due."""
    later = await bench.enqueue(delay_ms=60_000)
    soon = await bench.enqueue(delay_ms=1_000)
    assert [soon, later] == [job.job_id for job in await onlooker(bench).delayed()]
    assert [START_MS + 1_000, START_MS + 60_000] == [job.due_ms for job in await onlooker(bench).delayed()]


async def test_depths_of_some_adapters(bench):
    """State, waiting, running and last claim of each; of one never opened nothing."""
    await bench.enqueue()
    await bench.claim()
    await bench.enqueue()
    await bench.queue.pause("cfo@1")
    depths = await onlooker(bench).depths(["cfo@1", "nobody@1"])
    assert {"cfo@1": RefDepth("paused", 1, 1, START_MS), "nobody@1": RefDepth("", 0, 0, 0)} == depths
