from __future__ import annotations

import pytest
from redis.asyncio import Redis

from lorapool.shared.job import JobState
from lorapool.shared.queue.protocol import Delta, JobLease, Settlement
from lorapool.shared.queue.replies import RESULT_FIELDS
from lorapool.shared.server.keys import Keys, new_job_id
from lorapool.shared.server.terms import Terms
from tests.parts import Queue
from tests.shared.conftest import LEASE_MS, START_MS, Bench, job, success

DAY_MS = 86_400_000


async def test_a_result_is_plain_fields_with_a_ttl(bench: Bench) -> None:
    """The answer can be read with HGET; the request is gone; the record stays a day."""
    await bench.enqueue(id="mine")
    [claimed] = await bench.claim()
    await bench.set_clock(START_MS + 500)
    settlement = success(claimed, text="Nine months.", finish_reason="eos_token", completion_tokens=4, detail=b"\x80")
    [settled] = await bench.queue.settle([settlement])
    assert ("settled", "succeeded") == (settled.outcome, settled.state)
    assert b"Nine months." == await bench.redis.hget(bench.keys.job("mine"), "text")
    record = await bench.queue.get("mine")
    assert (str(START_MS + 500), "4", b"\x80") == (record["finished_ms"], record["completion_tokens"], record["detail"])
    assert not await bench.redis.exists(bench.keys.payload("mine"))
    assert 0 < await bench.redis.pttl(bench.keys.job("mine")) <= DAY_MS


async def test_results_are_the_fields_that_tell_of_an_end(bench: Bench) -> None:
    """Many results come in one reply, as the records have them; what is not there is None."""
    job_id = await bench.enqueue()
    await bench.queue.settle([success(c, text="Six months.", detail=b"\xff") for c in await bench.claim()])
    found, missing = await bench.queue.results([job_id, "0.unknown"])
    record = await bench.queue.get(job_id)
    assert missing is None
    assert (b"\xff", "Six months.", "succeeded") == (found["detail"], found["text"], found["state"])
    assert found == {name: record[name] for name in found}
    assert set(record) & set(RESULT_FIELDS) == set(found)


async def test_a_repeat_is_told_the_first_outcome(bench: Bench) -> None:
    """A settle whose reply was lost is settled, not stale, and changes nothing."""
    await bench.enqueue(id="mine")
    [claimed] = await bench.claim()
    await bench.queue.settle([success(claimed, text="first")])
    [repeat] = await bench.queue.settle([success(claimed, text="second")])
    assert ("settled", "succeeded") == (repeat.outcome, repeat.state)
    assert (await bench.queue.get("mine"))["text"] == "first"
    stats = await bench.queue.counters.of_adapter("cfo@1")
    assert (1, 0) == (stats["succeeded"], stats.get("stale", 0))


async def test_who_lost_its_lease_writes_nothing(bench: Bench) -> None:
    """Neither result nor token nor renewal, at any time after; each try is counted."""
    await bench.enqueue(id="mine", stream=True)
    [old] = await bench.claim(worker="frozen")
    await bench.pass_time(20_000)
    [new] = await bench.claim(worker="w2")
    before = await bench.queue.get("mine")
    assert before is not None
    before |= {"lifted": "1", "lost_leases": ""}  # all that its words change: it was only slow
    assert ("0.mine",) == (await bench.queue.renew([JobLease(old.job_id, old.lease)], LEASE_MS)).lost
    assert ("0.mine",) == await bench.queue.emit([Delta(old.job_id, old.lease, 1, 0, "x", (1,))])
    [stale] = await bench.queue.settle([success(old, text="wrong")])
    assert ("stale", "running") == (stale.outcome, stale.state)
    await bench.queue.release([JobLease(old.job_id, old.lease)])
    assert before == await bench.queue.get("mine")
    await bench.queue.settle([success(new, text="right")])
    [stale] = await bench.queue.settle([success(old, text="wrong")])
    assert ("stale", "succeeded") == (stale.outcome, stale.state)
    assert (await bench.queue.get("mine"))["text"] == "right"
    assert (await bench.queue.counters.of_adapter("cfo@1"))["stale"] == 4


async def test_a_vanished_record_is_stale(bench: Bench) -> None:
    [settled] = await bench.queue.settle([Settlement("0.nothing", "L", "succeeded")])
    assert ("stale", "") == (settled.outcome, settled.state)


async def test_a_retry_waits_longer_each_time_and_ends_as_a_dead_letter(bench: Bench) -> None:
    """Three attempts, one and two seconds apart give or take half; then failed, with the request kept for a week."""
    await bench.enqueue(id="mine")
    waits = []
    for attempt in (1, 2, 3):
        [claimed] = await bench.claim()
        assert attempt == claimed.attempt
        await bench.queue.settle(
            [Settlement("0.mine", claimed.lease, "retry", error="CudaError", message="out of luck")]
        )
        due = await bench.redis.zscore(bench.keys.one("delayed"), "mine")
        if due is not None:
            waits.append(due - bench.now)
            await bench.set_clock(int(due))
    assert 500 <= waits[0] <= 1_500
    assert 1_000 <= waits[1] <= 3_000
    record = await bench.queue.get("mine")
    assert ("failed", "CudaError", "out of luck", "3") == tuple(
        record[n] for n in ("state", "error", "message", "attempts")
    )
    assert await bench.redis.pttl(bench.keys.payload("mine")) > 6 * DAY_MS
    [(_, letter)] = await bench.redis.xrange(bench.keys.one("dead"))
    assert (b"mine", b"cfo@1", b"CudaError") == (letter[b"job"], letter[b"ref"], letter[b"reason"])
    stats = await bench.queue.counters.of_adapter("cfo@1")
    assert (2, 1, 1) == (stats["retried"], stats["dead"], stats["failed"])


async def test_what_cannot_pass_is_not_retried(bench: Bench) -> None:
    await bench.enqueue(id="mine")
    [claimed] = await bench.claim()
    await bench.queue.settle([Settlement("0.mine", claimed.lease, "failed", error="PromptTooLong", message="9 > 8")])
    record = await bench.queue.get("mine")
    assert ("failed", "PromptTooLong", "9 > 8") == (record["state"], record["error"], record["message"])
    assert not await bench.redis.exists(bench.keys.one("dead"))


async def test_an_outage_sends_nobody_to_the_dead_letters(bench: Bench) -> None:
    """After a minute without server or workers, owners get one lease's time to renew before anything is reaped."""
    await bench.enqueue(id="mine")
    [claimed] = await bench.claim()
    await bench.set_clock(bench.now + 60_000)
    await bench.queue.tick("w2")
    assert await bench.state("mine") == "running"
    renewed = await bench.queue.renew([JobLease("0.mine", claimed.lease)], LEASE_MS)
    assert renewed.lost == ()
    await bench.pass_time(LEASE_MS - 1_000)
    assert await bench.state("mine") == "running"
    await bench.pass_time(2_000)
    assert await bench.state("mine") == "queued"


async def test_a_released_job_is_unburnt(bench: Bench) -> None:
    await bench.enqueue(id="mine")
    [claimed] = await bench.claim()
    await bench.queue.release([JobLease("0.mine", claimed.lease)])
    await bench.queue.release([JobLease("0.mine", claimed.lease)])
    [again] = await bench.claim()
    assert (1, 0, 2) == (again.attempt, again.lost, again.fence)
    assert (await bench.queue.counters.of_adapter("cfo@1"))["released"] == 1


async def test_cancel_in_every_state(bench: Bench) -> None:
    """Waiting jobs end at once; a running one's worker is told and settles it; an ended one stays as it is."""
    for name, fields in {"queued": {}, "delayed": {"delay_ms": 5_000}}.items():
        await bench.enqueue(id=name, **fields)
        assert JobState.CANCELLED == await bench.queue.cancel(name)
    await bench.enqueue(id="running")
    [claimed] = await bench.claim()
    assert JobState.RUNNING == await bench.queue.cancel("running")
    assert JobState.RUNNING == await bench.queue.cancel("running")
    told = [fields for _, fields in await bench.queue.control("w1", "0-0", 0)]
    assert told == [{"op": "cancel", "job_id": "0.running", "lease": claimed.lease}]
    assert ("0.running",) == (await bench.queue.renew([JobLease("0.running", claimed.lease)], LEASE_MS)).cancelled
    await bench.queue.settle([Settlement("0.running", claimed.lease, "cancelled", text="so far")])
    assert JobState.CANCELLED == await bench.queue.cancel("running")
    assert (await bench.queue.get("running"))["text"] == "so far"
    assert (await bench.queue.counters.of_adapter("cfo@1"))["cancelled"] == 3


async def test_a_cancelled_job_whose_worker_died_is_cancelled(bench: Bench) -> None:
    await bench.enqueue(id="mine")
    await bench.claim()
    await bench.queue.cancel("mine")
    await bench.pass_time(LEASE_MS + 1_000)
    assert await bench.state("mine") == "cancelled"


async def test_a_deadline_ends_what_waits_and_stops_what_runs(bench: Bench) -> None:
    await bench.enqueue(id="waits", deadline_ms=5_000)
    await bench.enqueue("ceo@1", id="runs", deadline_ms=5_000)
    [claimed] = await bench.claim("ceo@1")
    await bench.pass_time(5_000)
    assert await bench.state("waits") == "expired"
    assert await bench.state("runs") == "running"
    renewed = await bench.queue.renew([JobLease("0.runs", claimed.lease)], LEASE_MS)
    assert ((), ("0.runs",)) == (renewed.cancelled, renewed.overdue)


async def test_a_client_may_expire_its_own_overdue_job(bench: Bench) -> None:
    """Even with no worker anywhere; not before the deadline."""
    await bench.enqueue(id="mine", deadline_ms=1_000)
    assert JobState.QUEUED == await bench.queue.expire("mine")
    await bench.set_clock(bench.now + 1_000)
    assert JobState.EXPIRED == await bench.queue.expire("mine")
    assert JobState.EXPIRED == await bench.queue.expire("mine")


async def test_tokens_are_streamed_once_each(bench: Bench) -> None:
    """A repeated delta is not appended again; a later attempt begins with a restart; the end is told."""
    await bench.enqueue(id="mine", stream=True)
    [first] = await bench.claim()
    for _ in range(2):
        await bench.queue.emit([Delta("0.mine", first.lease, 1, 0, "Hé", (7, 8))])
    await bench.queue.settle([Settlement("0.mine", first.lease, "retry", error="X")])
    await bench.set_clock(bench.now + 2_000)
    [second] = await bench.claim()
    await bench.queue.emit(
        [Delta("0.mine", second.lease, 2, 0, "Hé", (7, 8)), Delta("0.mine", second.lease, 2, 2, "!", (9,))]
    )
    await bench.queue.settle([success(second, text="Hé!")])
    items = await bench.queue.tokens("mine", "0-0", 0)
    assert [("delta", 1, "Hé"), ("restart", 2, ""), ("delta", 2, "Hé"), ("delta", 2, "!"), ("end", 2, "")] == [
        (item.kind, item.attempt, item.text) for item in items
    ]
    assert (2, (9,), JobState.SUCCEEDED) == (items[3].offset, items[3].token_ids, items[4].state)
    assert items[4:] == await bench.queue.tokens("mine", items[3].entry_id, 0)


async def test_only_streamed_jobs_emit(bench: Bench) -> None:
    """A delta of a job submitted without ``stream`` leaves nothing behind."""
    await bench.enqueue(id="mine")
    [claimed] = await bench.claim()
    assert () == await bench.queue.emit([Delta("0.mine", claimed.lease, 1, 0, "x", (1,))])
    assert [] == await bench.queue.tokens("mine", "0-0", 0)


async def test_the_first_token_is_timed(bench: Bench) -> None:
    """By the worker's word, or by the first delta of a streamed job."""
    await bench.enqueue(id="told")
    await bench.enqueue(id="seen", stream=True)
    told, seen = await bench.claim()
    await bench.set_clock(START_MS + 70)
    await bench.queue.emit([Delta("0.seen", seen.lease, 1, 0, "x", (1,))])
    await bench.queue.settle([success(told, first_token_ms=START_MS + 30), success(seen)])
    assert str(START_MS + 30) == (await bench.queue.get("told"))["first_token_ms"]
    assert str(START_MS + 70) == (await bench.queue.get("seen"))["first_token_ms"]
    assert (await bench.queue.counters.of_adapter("cfo@1"))["first_token_ms"] == 100


async def test_the_waiting_client_is_told(bench: Bench) -> None:
    """One notice an end, in its inbox, one entry a call; trimming can be seen from what was ever written."""
    for name in ("a", "b"):
        await bench.enqueue(id=name, client="me")
    await bench.enqueue(id="other", client="you")
    await bench.queue.settle([success(claimed) for claimed in await bench.claim()])
    notices = await bench.queue.inbox("me", "0-0", 0)
    assert [("0.a", "succeeded"), ("0.b", "succeeded")] == [(n.job_id, n.state) for n in notices]
    assert [] == await bench.queue.inbox("me", notices[-1].entry_id, 0.01)
    assert (1, 0) == (await bench.queue.inbox_written("me"), await bench.queue.inbox_written("nobody"))


async def test_a_short_answer_comes_with_its_notice(bench: Bench) -> None:
    """As the record has it, whatever bytes are in text and detail."""
    await bench.enqueue(id="mine", client="me")
    answer = {"text": "a\tb\n\nc é", "detail": b"\n\t\x80\xff", "device": "cuda:0", "first_token_ms": START_MS + 1}
    await bench.queue.settle([success(c, finish_reason="length", **answer) for c in await bench.claim()])
    [notice] = await bench.queue.inbox("me", "0-0", 0)
    [record] = await bench.queue.results(["mine"])
    assert record == notice.record


async def test_an_inbox_that_nobody_reads_is_bounded(redis: Redis) -> None:
    """Beyond its bytes it takes plain states, and few; read again, it brings answers again."""
    queue = Queue(redis, "test", terms=Terms(agent_window=10_000, inbox_bytes=20_000, inbox_unread=16))
    await queue.open_adapter("cfo@1", "ab" * 32)

    async def end(count: int) -> None:
        for _ in range(count):
            await queue.enqueue(job(client="me"))
            [claimed] = (await queue.claim("w1", new_job_id(), ["cfo@1"], 1, 1, LEASE_MS)).jobs
            await queue.settle([success(claimed, text="x" * 400)])

    await end(8)
    assert all(notice.record for notice in await queue.inbox("me", "0-0", 0))
    await end(120)
    inbox = Keys("test").inbox("me")
    assert await redis.memory_usage(inbox) < 60_000
    assert await redis.xlen(inbox) < 100
    [(last, newest)] = await redis.xrevrange(inbox, count=1)
    assert [b"succeeded"] == list(newest.values())
    assert [] == await queue.inbox("me", last.decode(), 0)
    await end(1)
    assert [True] == [notice.record is not None for notice in await queue.inbox("me", last.decode(), 0)]
    await queue.close()


async def test_an_agents_counters_go_when_it_does(bench: Bench) -> None:
    """They live for thirty days from its last job on; its adapters' keep the sums."""
    await bench.enqueue(agent="ada")
    assert 29 * DAY_MS < await bench.redis.pttl(bench.keys.agent("ada")) <= 30 * DAY_MS
    assert await bench.redis.pttl(bench.keys.stats("cfo@1")) == -1


@pytest.mark.parametrize(
    ("outcome", "fields"),
    [("succeeded", {"text": "x" * 600}), ("failed", {"error": "TooHot"}), ("cancelled", {"message": "on request"})],
)
async def test_any_other_end_is_only_hinted_at(bench: Bench, outcome: str, fields: dict[str, str]) -> None:
    """A long answer or a failure is read from the record."""
    await bench.enqueue(id="mine", client="me")
    await bench.queue.settle([Settlement(c.job_id, c.lease, outcome, **fields) for c in await bench.claim()])
    [notice] = await bench.queue.inbox("me", "0-0", 0)
    assert (outcome, None) == (notice.state, notice.record)


async def test_a_success_clears_what_an_earlier_attempt_left(bench: Bench) -> None:
    """Error and message are those of the attempt that ended the job."""
    await bench.enqueue(id="mine", client="me")
    [first] = await bench.claim()
    await bench.queue.settle([Settlement(first.job_id, first.lease, "retry", error="OutOfMemory", message="no room")])
    await bench.set_clock(START_MS + 60_000)
    await bench.queue.settle([success(c) for c in await bench.claim()])
    record = await bench.queue.get("mine")
    assert ("succeeded", "2", "", "") == tuple(record[name] for name in ("state", "attempts", "error", "message"))


async def test_counters_are_the_sum_of_the_records(bench: Bench) -> None:
    """Every counter of adapter and agent can be computed again from the jobs' hashes."""
    await bench.queue.open_adapter("cfo@1", "", agent_window=1000)
    ids = [await bench.enqueue(agent=f"agent{i % 2}") for i in range(40)]
    for i in range(5):
        await bench.set_clock(bench.now + 100 * i)
        claimed = await bench.claim(n=8)
        outcomes = ("succeeded", "failed", "retry", "expired", "succeeded", "cancelled", "succeeded")
        settlements = [
            Settlement(c.job_id, c.lease, outcome, prompt_tokens=9, completion_tokens=j, load_ms=5 * j,
                       first_token_ms=bench.now + j, resident=j % 2 == 0)
            for j, (c, outcome) in enumerate(zip(claimed, outcomes, strict=False))
        ]  # fmt: skip
        await bench.set_clock(bench.now + 50)
        await bench.queue.settle(settlements)
        await bench.queue.release([JobLease(c.job_id, c.lease) for c in claimed[7:]])
    records = [record for record in await bench.queue.get_many(ids) if record is not None]
    assert expected_counters(records) == await bench.queue.counters.of_adapter("cfo@1")
    mine = [record for record in records if record["agent"] == "agent1"]
    assert expected_counters(mine) == await bench.queue.counters.of_agent("agent1")


def expected_counters(records: list) -> dict[str, int]:
    """Counters from records: sums over all jobs, and of times over those that ended."""

    def number(record, name: str) -> int:
        return int(record.get(name) or 0)

    sums = dict.fromkeys(("submitted", "claimed", "released", "reaped", "retried"), 0)
    for record in records:
        sums["submitted"] += 1
        sums["claimed"] += number(record, "fence")
        sums["released"] += number(record, "fence") - number(record, "attempts")
        sums["reaped"] += number(record, "lost")
        sums["retried"] += number(record, "retries")
        if number(record, "finished_ms"):
            ended = {record["state"]: 1, "dead": bool(record.get("dead"))}
            ended |= {name: number(record, name) for name in ("prompt_tokens", "completion_tokens", "load_ms")}
            for field, stamp in {"queued": "started", "first_token": "first_token", "total": "finished"}.items():
                at = number(record, f"{stamp}_ms")
                ended[f"{field}_ms"] = at - number(record, "submitted_ms") if at else 0
            if "resident" in record:
                ended["slot_hits" if record["resident"] == "1" else "slot_misses"] = 1
            for name, value in ended.items():
                sums[name] = sums.get(name, 0) + value
    return {name: value for name, value in sums.items() if value}


async def test_many_settle_in_bounded_calls(redis) -> None:
    """More than 64 settlements are split, and answered in order."""
    queue = Queue(redis, "many")
    await queue.open_adapter("cfo@1", "", agent_window=1_000)
    await queue.enqueue_many([job() for _ in range(150)])
    held = [c for i in range(3) for c in (await queue.claim("w", f"L{i}", ["cfo@1"], 64, 1, LEASE_MS)).jobs]
    settled = await queue.settle([success(claimed) for claimed in held])
    assert [claimed.job_id for claimed in held] == [answer.job_id for answer in settled]
    assert len(held) == 150
    assert {"settled"} == {answer.outcome for answer in settled}
    await queue.close()


@pytest.mark.parametrize("give_back", ["release", "retry"])
async def test_a_returned_job_past_its_deadline_expires(bench: Bench, give_back: str) -> None:
    await bench.enqueue(id="mine", deadline_ms=1_000)
    [claimed] = await bench.claim()
    await bench.set_clock(bench.now + 1_000)
    if give_back == "release":
        await bench.queue.release([JobLease("0.mine", claimed.lease)])
    else:
        await bench.queue.settle([Settlement("0.mine", claimed.lease, "retry", error="X")])
    assert await bench.state("mine") == "expired"
