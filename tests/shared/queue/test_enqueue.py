from __future__ import annotations

import asyncio

import pytest

from lorapool.shared.codec import decode_job
from lorapool.shared.errors import (
    AdapterClosed,
    Fate,
    InvalidRequest,
    JobConflict,
    PayloadTooLarge,
    QueueFull,
    UnknownAdapter,
    UnknownJob,
)
from lorapool.shared.queue import replies
from lorapool.shared.queue.protocol import Enqueued
from lorapool.shared.server.terms import Terms
from tests.fleet import until
from tests.parts import Queue
from tests.shared.conftest import START_MS, Bench, job


async def test_an_accepted_job_can_be_read_by_hand(bench: Bench) -> None:
    """Its hash holds plain fields, its stream one entry, its payload the request."""
    job_id = await bench.enqueue(agent="ada", priority="high")
    record = await bench.queue.get(job_id)
    assert record is not None
    expected = {"state": "queued", "ref": "cfo@1", "agent": "ada", "digest": "ab" * 32, "attempts": "0"}
    assert expected == {name: record[name] for name in expected}
    assert str(START_MS) == record["submitted_ms"]
    [(_, entry)] = await bench.redis.xrange(bench.keys.stream("cfo@1", "high"))
    assert entry == {b"job": job_id.removeprefix("0.").encode(), b"turn": str(START_MS).encode()}
    assert decode_job(await bench.redis.get(bench.keys.payload(job_id))).agent == "ada"


async def test_the_same_request_is_the_same_job(bench: Bench) -> None:
    """Submitting again finds the job, whatever became of it, and queues nothing."""
    sent = job(id="mine")
    assert Enqueued("0.mine", "queued", created=True) == await bench.queue.enqueue(sent)
    assert Enqueued("0.mine", "queued", created=False) == await bench.queue.enqueue(sent)
    await bench.queue.cancel("mine")
    assert Enqueued("0.mine", "cancelled", created=False) == await bench.queue.enqueue(sent)
    assert {} == await bench.queue.depths()


async def test_another_request_of_that_id_is_a_conflict(bench: Bench) -> None:
    await bench.enqueue(id="mine")
    with pytest.raises(JobConflict, match=r"0\.mine"):
        await bench.enqueue(id="mine", prompt="something else")


async def test_a_seed_is_fixed_at_acceptance(bench: Bench) -> None:
    """A job without a seed gets one, the same at every attempt; a repeat does not change it."""
    sent = job()
    await bench.queue.enqueue(sent)
    await bench.queue.enqueue(sent)
    [first] = await bench.claim()
    await bench.pass_time(20_000)
    [second] = await bench.claim(worker="w2")
    assert first.seed == second.seed
    [given] = [claimed async for claimed in _claimed_with_seed(bench, 7)]
    assert given == 7


async def _claimed_with_seed(bench: Bench, seed: int):
    await bench.enqueue("ceo@1", params={"seed": seed})
    for claimed in await bench.claim("ceo@1", worker="w3"):
        yield claimed.seed


async def test_an_unopened_adapter_takes_nothing(bench: Bench) -> None:
    with pytest.raises(UnknownAdapter, match="cto@1"):
        await bench.enqueue("cto@1")


async def test_a_closed_adapter_refuses_and_drains(bench: Bench) -> None:
    """Closed: no new jobs, the old are still served."""
    await bench.enqueue()
    await bench.queue.close_adapter("cfo@1")
    with pytest.raises(AdapterClosed, match="closed"):
        await bench.enqueue()
    assert len(await bench.claim()) == 1


async def test_the_base_model_needs_no_opening(bench: Bench) -> None:
    assert (await bench.enqueue("_base")).startswith("0.")


async def test_depth_is_bounded_by_adapter(bench: Bench) -> None:
    """Above max_depth a job is refused with the numbers; other adapters are not touched; nothing stays behind."""
    await bench.queue.open_adapter("cfo@1", "ab" * 32, max_depth=2)
    for _ in range(2):
        await bench.enqueue()
    with pytest.raises(QueueFull) as caught:
        await bench.enqueue(id="late")
    assert ("adapter", 2, 2) == (caught.value.scope, caught.value.depth, caught.value.limit)
    assert 0.1 <= caught.value.retry_after_s <= 5
    assert await bench.queue.get("late") is None
    await bench.enqueue("ceo@1")


async def test_an_agent_meets_its_own_window_first(bench: Bench) -> None:
    """The window counts what one agent has waiting in one adapter, delayed jobs too; a claim makes room."""
    await bench.queue.open_adapter("cfo@1", "ab" * 32, agent_window=2)
    await bench.enqueue(agent="flood")
    await bench.enqueue(agent="flood", delay_ms=1000)
    with pytest.raises(QueueFull) as caught:
        await bench.enqueue(agent="flood")
    assert ("agent", 2, 2) == (caught.value.scope, caught.value.depth, caught.value.limit)
    await bench.enqueue(agent="calm")
    await bench.claim(n=1)
    await bench.enqueue(agent="flood")


async def test_an_agents_crowd_lets_others_pass(bench: Bench) -> None:
    """Beyond a quarter of its window an agent's jobs wait in a lane of their own, so that another's is claimed before
    them; and their adapter counts as younger while nobody else waits there."""
    await bench.queue.open_adapter("cfo@1", "ab" * 32, agent_window=8)
    crowd = [await bench.enqueue(agent="flood") for _ in range(4)]
    lanes = [(await bench.queue.get(job_id))["lane"] for job_id in crowd]
    assert ["normal", "normal", "normal_over_quota", "normal_over_quota"] == lanes
    calm = await bench.enqueue(agent="calm")
    assert [*crowd[:2], calm] == [claimed.job_id for claimed in await bench.claim(n=3)]
    [waiting] = (await bench.queue.tick("w1")).waiting
    assert START_MS + Terms().over_quota_ms == waiting.since_ms
    assert crowd[2:] == [claimed.job_id for claimed in await bench.claim(n=3)]


async def test_an_agents_crowd_is_not_passed_for_ever(bench: Bench) -> None:
    """Once the turn of a crowded job has come, jobs submitted later no longer pass it."""
    await bench.queue.open_adapter("cfo@1", "ab" * 32, agent_window=4)
    crowd = [await bench.enqueue(agent="flood") for _ in range(2)]
    await bench.set_clock(START_MS + Terms().over_quota_ms - 1)
    early = await bench.enqueue(agent="calm")
    assert [crowd[0], early] == [claimed.job_id for claimed in await bench.claim(n=2)]
    await bench.set_clock(START_MS + Terms().over_quota_ms + 1)
    late = await bench.enqueue(agent="calm")
    assert [crowd[1], late] == [claimed.job_id for claimed in await bench.claim(n=2)]


async def test_many_at_once_keep_their_order(bench: Bench) -> None:
    """One answer a job, in order, refusals in place; the jobs are claimed in the order given."""
    await bench.queue.open_adapter("cfo@1", "ab" * 32, agent_window=150)
    jobs = [job(id=f"job{i}") for i in range(150)]
    jobs[3] = job(id="0.bad")
    jobs[5] = job(ref="cto@1")
    jobs[70] = jobs[69].model_copy(update={"prompt": "another"})
    outcomes = await bench.queue.enqueue_many(jobs)
    refused = {index: type(outcome) for index, outcome in enumerate(outcomes) if not isinstance(outcome, Enqueued)}
    assert refused == {3: InvalidRequest, 5: UnknownAdapter, 70: JobConflict}
    accepted = [f"0.job{i}" for i in range(150) if i not in refused]
    claimed = [c.job_id for _ in range(3) for c in await bench.claim(n=64)]
    assert accepted == claimed


async def test_large_requests_go_in_several_calls(bench: Bench) -> None:
    """Twelve requests of nearly a megabyte are not one twelve-megabyte command; one above the limit is refused."""
    jobs = [job(prompt="x" * 1_000_000) for _ in range(12)]
    outcomes = await bench.queue.enqueue_many([*jobs, job(prompt="x" * 1_100_000)])
    assert all(isinstance(outcome, Enqueued) for outcome in outcomes[:12])
    assert isinstance(outcomes[12], PayloadTooLarge)
    assert (await bench.queue.depths()) == {"cfo@1": 12}


async def test_a_delayed_job_waits_for_its_time(bench: Bench) -> None:
    job_id = await bench.enqueue(delay_ms=3_000)
    assert await bench.state(job_id) == "delayed"
    assert await bench.claim() == ()
    await bench.set_clock(bench.now + 3_000)
    [claimed] = await bench.claim()
    assert job_id == claimed.job_id


async def test_a_waiting_worker_is_woken(bench: Bench) -> None:
    """A blocked worker learns of new work at once; without work it waits its time."""
    assert not await bench.queue.wait_for_work("w1", 0.02)
    waiting = asyncio.create_task(bench.queue.wait_for_work("w1", 5))
    await asyncio.sleep(0.05)
    await bench.enqueue()
    assert await asyncio.wait_for(waiting, 1)


async def _woken(bench: Bench, *workers: str) -> dict[str, bool]:
    """Which of these workers, all idle, a job wakes."""
    while await bench.queue.wait_for_work("drain", 0.01):
        pass
    waits = {name: asyncio.create_task(bench.queue.wait_for_work(name, 1.5)) for name in workers}

    async def all_idle() -> bool:
        return await bench.redis.exists(*(bench.keys.one(f"idle:{name}") for name in workers)) == len(workers)

    await until(all_idle)
    await bench.enqueue()
    return {name: await wait for name, wait in waits.items()}


async def test_the_adapters_last_worker_is_woken_before_others(bench: Bench) -> None:
    """Of two idle workers the one that served the adapter last gets the signal."""
    await bench.enqueue()
    await bench.claim(worker="w2")
    assert {"w1": False, "w2": True, "w3": False} == await _woken(bench, "w1", "w2", "w3")


async def test_of_the_last_workers_the_latest_idle_one_is_woken(bench: Bench) -> None:
    """The server remembers some workers that ran an adapter: busy ones are passed over."""
    workers = [f"w{n}" for n in range(Terms().last_workers + 1)]
    for worker in (*workers, workers[1]):
        await bench.enqueue()
        await bench.claim(worker=worker)
    remembered = (await bench.redis.hget(bench.keys.one("last_worker"), "cfo@1")).decode().split()
    assert [workers[1], *reversed(workers[2:])] == remembered
    assert {"w0": False, "w3": True, "w2": False} == await _woken(bench, "w0", "w3", "w2")


async def test_a_worker_apart_heeds_its_own_marker_only(bench: Bench) -> None:
    """Who waits for its own work is woken for an adapter that it ran, not for others."""
    await bench.enqueue()
    await bench.claim(worker="w1")
    while await bench.queue.wait_for_work("drain", 0.01):
        pass
    for ref, woken in (("ceo@1", False), ("cfo@1", True)):
        await bench.queue.open_adapter(ref, "ab" * 32)
        waiting = asyncio.create_task(bench.queue.wait_for_work("w1", 0.3, own=True))
        await asyncio.sleep(0.05)
        await bench.queue.enqueue_many([job(ref=ref)])
        assert woken == await waiting


async def test_what_was_never_accepted_is_unknown(bench: Bench) -> None:
    assert await bench.queue.get("nothing") is None
    assert await bench.queue.states(["nothing"]) == [None]
    for ask in (bench.queue.cancel, bench.queue.expire, bench.queue.explain):
        with pytest.raises(UnknownJob, match=r"0\.nothing"):
            await ask("nothing")


async def test_a_restarted_server_without_scripts_is_served(bench: Bench) -> None:
    """The server may forget our scripts at any time."""
    await bench.redis.script_flush()
    job_id = await bench.enqueue()
    await bench.redis.script_flush()
    [claimed] = await bench.claim()
    assert job_id == claimed.job_id


async def test_the_servers_own_clock_is_used(redis) -> None:
    """Without a test clock, stamps are Redis TIME."""
    queue = Queue(redis, "real")
    await queue.enqueue(job(ref="_base", id="a"))
    seconds, _ = await redis.time()
    record = await queue.get("a")
    assert abs(int(record["submitted_ms"]) - seconds * 1000) < 2_000
    await queue.close()


RAW = ("mine", "f", "cfo@1", "ada", "", "normal", "0", "5", "10", "0", "0", "", b"payload")


@pytest.mark.parametrize(
    ("field", "index", "value"),
    [
        ("id", 0, "a b"),
        ("id", 0, "0.mine"),
        ("id", 0, ""),
        ("ref", 2, "cfo"),
        ("ref", 2, "*"),
        ("agent", 3, "two words"),
        ("agent", 3, "*"),
        ("agent", 3, b"\xff"),
        ("agent", 3, "a" * 129),
        ("client", 4, "a:b"),
        ("priority", 5, "again"),
        ("stream", 6, "yes"),
        ("seed", 7, "1.5"),
        ("cost", 8, "nan"),
        ("delay", 9, "-1"),
        ("deadline", 10, "1e300"),
        ("key", 11, "a:b"),
        ("key", 11, "*"),
        ("payload", 12, b""),
    ],
)
async def test_what_a_raw_client_sends_is_looked_at(bench: Bench, field: str, index: int, value: str | bytes) -> None:
    """A name or number that no client of ours would send is refused by its field; its batch mates are accepted."""
    bad = [*RAW[:index], value, *RAW[index + 1 :]]
    mate = ["mate", *RAW[1:]]
    answers = await bench.queue._scripts.run("enqueue", *bad, *mate)
    assert [f"invalid {field}".encode(), b"new queued"] == answers
    assert {"cfo@1": 1} == await bench.queue.depths()


async def test_a_refused_field_is_an_invalid_request(bench: Bench) -> None:
    """Its job's id and its fate with it; an entry that breaks off is refused as well."""
    assert [b"invalid seed"] == await bench.queue._scripts.run("enqueue", *RAW[:7])
    refusal = replies.enqueued("invalid agent", job(id="mine"), bench.keys)
    assert isinstance(refusal, InvalidRequest)
    assert ("0.mine", Fate.NOT_QUEUED) == (refusal.job_id, refusal.fate)
