"""What lorapool did not write: an entry that cannot be read is told, counted and stepped over; nobody waits for it."""

from __future__ import annotations

import signal

import pytest

from lorapool.producer.client.client import Client
from lorapool.shared.codec import encode_job
from lorapool.shared.connection import PoolConnection
from lorapool.shared.errors import LorapoolError, MalformedEntry
from lorapool.shared.job import Job
from lorapool.shared.server.keys import Keys, PoolKeys
from lorapool.shared.timetable.timetable import Timetable
from tests.containment.conftest import Contain
from tests.containment.pool import ContainedPool
from tests.fleet import until

KEYS, POOL = Keys("default"), PoolKeys("default")
JUNK = b"\xff\xfe \x00 not utf-8 \xed\xa0\x80"


async def queue_by_hand(pool: ContainedPool, job_id: str, on: str, **fields: str | bytes) -> None:
    """What a raw client may write: a job that no script has checked."""
    payload = encode_job(Job(id=job_id, ref=on, prompt="by hand", params={"max_new_tokens": 5}))
    record: dict[str, str | bytes] = {
        "state": "queued", "lease": "", "ref": on, "agent": "raw", "attempts": "0", "cost": "1", "submitted_ms": "1",
        "stream": "0", "deadline_ms": "", "worker": "", "client": "", "lost": "0", "fence": "0", "digest": "",
        "seed": "1", "priority": "normal", "lane": "normal", "entry": "", "due_ms": "", "fingerprint": "f",
    }  # fmt: skip
    await pool.redis.hset(KEYS.job(job_id), mapping={**record, **fields})
    await pool.redis.set(KEYS.payload(job_id), payload)
    await pool.redis.xadd(KEYS.stream(on), {"job": job_id})
    await pool.redis.hincrby(KEYS.one("waiting"), on, 1)
    await pool.redis.hincrby(KEYS.one("waiting"), "*", 1)
    await pool.redis.zadd(KEYS.one("ready"), {on: 1})
    await pool.redis.zadd(KEYS.one("wake"), {"1": 1})


async def test_an_agents_name_with_a_space(contained: Contain) -> None:
    """A job that a raw client queued under an agent's name with a space fails by name; three of three workers go on."""
    async with contained(workers=3) as pool:
        await pool.adapters("foreign")
        await pool.calm(1.0)
        async with pool.bystanders() as bystanders:
            await queue_by_hand(pool, "spaced", "foreign@1", agent="an agent")
            with pytest.raises(LorapoolError, match="Malformed"):
                await pool.client.get("spaced").result(20)
            await bystanders.served(30)
        bystanders.judge(factor=1.5)
        await pool.fsck()  # counts anew what was written by hand


async def test_bytes_that_are_no_utf8_for_a_worker(contained: Contain) -> None:
    """Junk in a worker's control stream ends nobody, also at the next start, and what follows it is heard."""
    async with contained(workers=2) as pool:
        await pool.calm(1.0)
        async with pool.bystanders() as bystanders:
            for name in pool.workers:
                await pool.redis.xadd(KEYS.ctl(name), {JUNK: JUNK, b"op": b"cancel"})
                await pool.redis.xadd(KEYS.ctl(name), {b"op": JUNK})
            assert 0 == pool.workers["w1"].stop()
            pool.start("w1")
            await pool.ready("w1")
            await bystanders.served(30)
        bystanders.judge(factor=2.0)
        running = await pool.client.submit("by-1", "to be cancelled", max_new_tokens=2000)
        await until(lambda: pool.redis.hget(KEYS.job(running.id), "worker"))
        await running.cancel()
        with pytest.raises(LorapoolError, match="cancelled"):
            await running.result(20)
        await pool.fsck()


DAMAGE = {
    "no number": {"attempts": "many"},
    "no ref": {"ref": b"foreign @1"},
    "junk": {"agent": JUNK, "digest": JUNK, "seed": JUNK},
}


@pytest.mark.parametrize("fields", DAMAGE.values(), ids=DAMAGE)
async def test_damaged_records_of_jobs(contained: Contain, fields: dict[str, str | bytes]) -> None:
    """A damaged record is failed by name, wherever it waits, and counted; nobody else's job is held up."""
    async with contained(workers=1) as pool:
        await pool.adapters("foreign")
        await pool.calm(1.0)
        async with pool.bystanders() as bystanders:
            await queue_by_hand(pool, "waits", "foreign@1", **fields)
            for place in ("delayed", "leases", "deadlines", "suspects"):
                state = "running" if place == "leases" else "delayed" if place == "delayed" else "queued"
                await pool.redis.hset(KEYS.job(place), mapping={"state": state, **fields})
                await pool.redis.zadd(KEYS.one(place), {place: 1})
            await until(lambda: pool.redis.zcard(KEYS.one("leases")))  # only the bystanders'
            await bystanders.served(30)
            assert b"failed" == await pool.redis.hget(KEYS.job("waits"), "state")
        bystanders.judge(factor=2.0)
        assert 5 <= int(await pool.redis.hget(KEYS.one("malformed"), "job record"))
        await pool.fsck()


async def test_keys_of_the_wrong_type(contained: Contain) -> None:
    """A string where a worker expects a stream or a hash is dropped, and the next who writes makes it anew."""
    async with contained(workers=2) as pool:
        await pool.adapters("foreign")
        await pool.calm(1.0)
        names = ("wake", "wake:w1", "ctl:w1", "claim:w1", "reaper", "last_worker", "agent:raw", "stats:foreign@1")
        async with pool.bystanders() as bystanders:
            for name in (*names, "stream:foreign@1", "window:foreign@1", "adapter:foreign@1", "job:string"):
                async with pool.redis.pipeline(transaction=True) as pipe:
                    pipe.delete(KEYS.one(name))
                    (pipe.rpush if name in {"claim:w1", "reaper"} else pipe.set)(KEYS.one(name), JUNK)
                    await pipe.execute()
            foreign, ghost = POOL.adapter("foreign@1"), POOL.adapter("ghost@1")
            for key in (foreign, ghost, POOL.worker("ghost"), POOL.schedule("ghost"), POOL.usage):
                await pool.redis.set(key, JUNK)
            soon_ms = 1000 * (await pool.redis.time())[0] + 300_000
            await pool.redis.zadd(POOL.workers, {b"ghost": soon_ms, b"far": 9e15, JUNK: 9e15})
            await pool.redis.sadd(POOL.pending, "ghost@1", JUNK, "foreign@1")
            await pool.redis.zadd(POOL.adapters, {JUNK: 1, b"ghost@1": 2})
            assert {"by-1", "by-4"} <= {record.id for record in await pool.client.adapters.list()}
            await pool.redis.zadd(KEYS.one("ready"), {JUNK: 1, b"string": 1})
            await pool.redis.zadd(KEYS.one("leases"), {JUNK: 1, b"string": 1})
            await bystanders.served(60)
            with pytest.raises(LorapoolError):
                await pool.client.submit("foreign@1", "to what is damaged")
            assert {"w1", "w2"} <= {worker["worker"] for worker in await pool.client.workers()}
        bystanders.judge(factor=2.0)
        await pool.fsck()


async def test_junk_among_what_all_adapters_share(contained: Contain) -> None:
    """Counts that are none, times that are none, for an adapter that nobody serves: all others' jobs are found at once,
    also the last ones, after which nobody comes."""
    async with contained(workers=2) as pool:
        await pool.adapters("foreign", "lonely")
        await pool.calm(1.0)
        ready = {"foreign@1": 1, "strange@1": float("-inf"), "by-1@1": float("inf"), "by-2@1": float("-inf")}
        for _ in range(3):
            async with pool.bystanders() as bystanders:
                await pool.redis.hset(KEYS.one("waiting"), mapping={"foreign@1": "x y", "strange@1": JUNK})
                await pool.redis.zadd(KEYS.one("ready"), ready)
                await bystanders.served(8)
            bystanders.judge(factor=2.0)
        for never in (float("inf"), float("-inf")):
            for worker in pool.workers.values():
                worker.signal(signal.SIGSTOP)
            last = await pool.client.submit("lonely", "nobody comes after it", max_new_tokens=2)
            await pool.redis.zadd(KEYS.one("ready"), {"lonely@1": never})
            for worker in pool.workers.values():
                worker.signal(signal.SIGCONT)
            await last.result(20)
        await pool.fsck()


async def test_what_a_client_reads(contained: Contain) -> None:
    """Junk in an inbox, a token stream or a record concerns who asked for that job, and nobody else."""
    async with contained(workers=1) as pool:
        inbox = KEYS.inbox(pool.client._name)
        jobs = [await pool.client.submit("by-1", f"ask {n}", max_new_tokens=40, stream=True) for n in range(3)]
        await pool.redis.xadd(inbox, {JUNK: JUNK})
        await pool.redis.xadd(inbox, {jobs[0].id: JUNK, jobs[1].id: b"succeeded\tno\tanswer\n"})
        await pool.redis.xadd(KEYS.tokens(jobs[0].id), {JUNK: JUNK, b"kind": b"delta", b"attempt": b"x"})
        texts = ["".join([delta.text async for delta in job.stream(30)]) for job in jobs]
        assert texts == [(await job.result(30)).text for job in jobs]
        await pool.redis.hset(KEYS.job(jobs[0].id), mapping={"state": JUNK, "detail": JUNK})
        async with Client(pool.url) as other:
            for ask in (other.get(jobs[0].id).state, other.get(jobs[0].id).result):
                with pytest.raises(MalformedEntry):
                    await ask()
            assert texts[1] == (await other.get(jobs[1].id).result()).text


async def test_a_damaged_entry_of_the_timetable(contained: Contain) -> None:
    """One entry that cannot be read leaves the others in the list, and says what is wrong with it."""
    async with contained(workers=0) as pool:
        await pool.client.schedules.add("by-1", "good morning", cron="0 8 * * *", name="sound")
        await pool.redis.hset(
            POOL.schedule("broken"), mapping={"name": "broken", "cron": JUNK, "params": "[" * 100_000}
        )
        await pool.redis.zadd(POOL.schedules, {b"broken": 1, JUNK: 1})
        assert ["sound"] == [entry.name for entry in await pool.client.schedules.list()]
        _, _, damaged = await Timetable(PoolConnection(pool.redis, "default")).due()
        assert ["broken"] == list(damaged)
        assert JUNK not in await pool.redis.zrange(POOL.schedules, 0, -1)
