"""Records: one order for both languages. A field that one side has elsewhere, or not at all, is seen."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from itertools import pairwise
from typing import Any

import pytest
from redis.asyncio import Redis

from lorapool.shared.job import Job
from lorapool.shared.queue import arguments, replies
from lorapool.shared.queue.protocol import Delta, JobLease
from lorapool.shared.scripts import Scripts, answers, constants, records, script, texts
from lorapool.shared.scripts.records import RECORDS
from lorapool.shared.server.keys import Keys
from lorapool.shared.server.server import Server
from lorapool.shared.server.terms import Terms
from tests.shared.scripts.test_texts import OPERATIONS, PARTS

KEYS, NOW = Keys("test"), 1_800_000_000_000
CLOCK = KEYS.one("clock")
HELD = JobLease("mine", "L2")
REQUEST = {
    "id": "mine", "ref": "cfo@1", "prompt": "How long is our runway?", "agent": "ada", "client": "board",
    "priority": "high", "stream": True, "params": {"seed": 5, "max_new_tokens": 9}, "delay_ms": 0,
    "deadline_ms": 60_000,
}  # fmt: skip
SETTLED = records.Settle(
    id="mine", lease="L2", outcome="succeeded", error="", message="", text="nine months", finish_reason="length",
    prompt_tokens=11, completion_tokens=12, load_ms=13, first_token_ms=NOW + 14, resident=1, device="cpu",
    dtype="float32", detail=b"\xff\x00", jitter=0.25,
)  # fmt: skip
IN_ORDER = (
    "ENQUEUE", "CLAIM", "SETTLE", "EMIT", "HELD", "REDRIVE", "DEAD", "PURGE_WAITING", "RETIRE", "OPEN",
    "SET_ADAPTER_STATE", "TALLY", "COUNTED", "PAIR", "HEAD", "LOOKED", "WAITING", "RENEWAL", "FULL", "QUOTA", "LETTER",
    "LIMITS", "ANSWER", "RESULT", "KEY_ADD", "KEY_LIST", "AUDIT",
)  # fmt: skip


class Life:
    """What becomes of a few jobs, no two values alike, and all that can be read of them."""

    def __init__(self, redis: Redis) -> None:
        self._redis = redis
        self.seen: dict[str, Any] = {}
        self._run = Scripts(Server(redis), KEYS.prefix, Terms(), CLOCK).run

    async def live(self) -> dict[str, Any]:
        """From the beginning, on an empty server."""
        await self._redis.flushdb()
        await self._redis.set(CLOCK, NOW)
        await self._run("open", *records.Open(ref="cfo@1", digest="d1"), "max_inflight", 7, "weight", 3)
        await self._succeed()
        await self._be_lost()
        await self._die()
        await self._be_full()
        await self._use_up_a_quota()
        counted = records.Counted(key="stats:cfo@1", field="loads", n=4)
        await self._run("tally", *records.Tally(reporter="w1", report="r1"), *counted)
        self.seen["report"] = await self._redis.get(KEYS.one("report:w1"))
        for key in (KEYS.job("mine"), KEYS.job("worse"), KEYS.adapter("cfo@1"), KEYS.stats("cfo@1")):
            fields = await self._redis.hgetall(key)
            self.seen[key] = {name: text for name, text in fields.items() if name not in {b"entry", b"dead"}}
        return self.seen

    async def _claim(self, lease: str, *, n: int = 2, refs: tuple[str, ...] = ("cfo@1",), worker: str = "w1") -> Any:
        args = records.Claim(
            worker=worker,
            lease=lease,
            n=n,
            max_adapters=1,
            per_adapter=n,
            lease_ms=15_000,
            most_suspects=3,
            residents=1,
        )  # fmt: skip
        return replies.claim(await self._run("claim", *args, "ceo@1", *refs), lease, KEYS)

    async def _succeed(self) -> None:
        for job_id in ("mine", "other"):
            packed = arguments.of_job(Job.parse(**{**REQUEST, "id": job_id}))
            self.seen[f"enqueue {job_id}"] = await self._run("enqueue", *packed)
        self.seen["view"] = replies.view((await self._run("tick", *records.Tick(worker="w1"))).decode())
        await self._claim("L1")
        await self._run("release", *arguments.of_held([JobLease("mine", "L1")]))
        await self._redis.set(CLOCK, NOW + 3)
        self.seen["claim"] = await self._claim("L2")
        self.seen["leases"] = await self._redis.zrange(KEYS.one("leases"), 0, -1, withscores=True)
        await self._run("cancel", *records.OneJob(id="other"))
        renewed = await self._run(
            "renew",
            *records.Renew(lease_ms=9_000),
            *arguments.of_held([HELD, JobLease("other", "L1"), JobLease("gone", "L")]),
        )
        self.seen["renewed"] = answers.Renewal(*renewed)
        await self._run(
            "emit", *arguments.of_delta(Delta("mine", "L2", attempt=1, offset=0, text="nine", token_ids=(8, 9, 7)))
        )
        self.seen["tokens"] = [fields for _, fields in await self._redis.xrange(KEYS.tokens("mine"))]
        await self._run("settle", *SETTLED)
        [(entry_id, fields)] = await self._redis.xrange(KEYS.inbox("board"))
        text = {name.decode(): value for name, value in fields.items()}
        self.seen["notices"] = [notice[1:] for notice in replies.notices(entry_id, text, KEYS)]
        self.seen["result"] = [replies.result(values) for values in await self._run("results", "mine")]

    async def _be_lost(self) -> None:
        await self._run("enqueue", *arguments.of_job(Job.parse(**{**REQUEST, "id": "lost"})))
        await self._claim("L5")
        await self._run("lose", *arguments.of_held([JobLease("lost", "L5")]))
        self.seen["offered"] = await self._run("tick", *records.Tick(worker="w2"))
        await self._run("release", *arguments.of_held([JobLease("other", "L1")]))
        self.seen["apart"] = await self._claim("L6", refs=(), worker="w2")

    async def _die(self) -> None:
        await self._run("enqueue", *arguments.of_job(Job.parse(**{**REQUEST, "id": "worse"})))
        await self._claim("L3")
        await self._run(
            "settle", *SETTLED._replace(id="worse", lease="L3", outcome="retry", error="Cramp", message="so")
        )
        self.seen["due"] = await self._redis.zrange(KEYS.one("delayed"), 0, -1, withscores=True)
        await self._redis.set(CLOCK, NOW + 9_000)
        await self._claim("L4", n=1)
        await self._run(
            "settle", *SETTLED._replace(id="worse", lease="L4", outcome="dead", error="Cramp", message="so")
        )
        self.seen["failure"] = [replies.result(values) for values in await self._run("results", "worse")]
        answer = await self._run("dead", *records.Dead(ref="cfo@1", after="", wanted=5))
        self.seen["dead"] = replies.dead_page(answer, KEYS).letters
        redriven = await self._run("redrive", *records.Redrive(id="worse", new_id="better"))
        self.seen["redriven"] = redriven
        self.seen["retired"] = await self._run("retire", *records.Retire(ref="cfo@1", wish="close"))
        self.seen["purged"] = await self._run("purge_waiting", *records.PurgeWaiting(ref="cfo@1", cursor=""))
        await self._run("set_adapter_state", *records.SetAdapterState(ref="cfo@1", state="paused"))

    async def _be_full(self) -> None:
        limits = await self._run("limits", *records.ChangeLimits(ref="cfo@1"), "max_depth", 2, "agent_window", 6)
        self.seen["limits"] = replies.limits(limits)
        jobs = [Job.parse(**{**REQUEST, "id": job_id}) for job_id in ("in", "too", "out")]
        await self._run("enqueue", *(arg for job in jobs[:2] for arg in arguments.of_job(job)))
        await self._run("limits", *records.ChangeLimits(ref="cfo@1"), *records.Pair(field="max_depth", value=1))
        [answer] = await self._run("enqueue", *arguments.of_job(jobs[2]))
        refused = replies.enqueued(answer.decode(), jobs[2], KEYS)
        self.seen["refused"] = (str(refused), vars(refused))

    async def _use_up_a_quota(self) -> None:
        key = records.KeyAdd(name="board-7", digest="d2", by="ops", note="n")
        await self._run("key_add", *key, "tokens_per_day", 20, "agent", "ada")
        await self._run("audit", *records.Audit(id="a", who="cli", what="did", on="it", outcome="done", note="so"))
        self.seen["acts"] = [fields for _, fields in await self._redis.xrange(KEYS.one("audit"))]
        jobs = [Job.parse(**{**REQUEST, "id": job_id, "ref": "_base", "key": "board-7"}) for job_id in ("paid", "dear")]
        _, answer = await self._run("enqueue", *(arg for job in jobs for arg in arguments.of_job(job)))
        refused = replies.enqueued(answer.decode(), jobs[1], KEYS)
        self.seen["beyond quota"] = (str(refused), vars(refused))
        self.seen["keys"] = await self._run("key_list", *records.KeyList(seen=0, wanted=5))


@pytest.fixture
async def life(redis: Redis) -> AsyncIterator[Life]:
    script.cache_clear()
    yield Life(redis)
    script.cache_clear()


async def test_each_field_arrives_in_its_place(life: Life) -> None:
    """What was sent by name is what is stored and answered under that name."""
    seen = await life.live()
    [mine] = seen["claim"].jobs
    assert ("0.mine", "cfo@1", "d1", "ada", 1, 2, 5, NOW, NOW + 3, NOW + 60_000) == (
        mine.job_id, mine.ref, mine.digest, mine.agent, mine.attempt, mine.fence, mine.seed, mine.submitted_ms,
        mine.claimed_ms, mine.deadline_ms,
    )  # fmt: skip
    record = seen[KEYS.job("mine")]
    assert {str(value).encode() for name, value in SETTLED._asdict().items() if name in RECORDS["RESULT"] and value} - {
        str(SETTLED.detail).encode()
    } <= set(record.values())
    [(job_id, state, answer)] = [notice for notice in seen["notices"] if notice[0] == "0.mine"]
    assert ("0.mine", "succeeded") == (job_id, state)
    [result] = seen["result"]
    assert answer.items() <= result.items()
    assert ("nine months", b"\xff\x00", "11", "12", "13") == tuple(
        result[name] for name in ("text", "detail", "prompt_tokens", "completion_tokens", "load_ms")
    )


@pytest.mark.parametrize("name", IN_ORDER)
async def test_a_field_out_of_its_order_is_seen(life: Life, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """Two fields that the Lua texts have the other way round than Python: an error, or something else comes of it."""
    expected, unseen = repr(await life.live()), []
    for one, other in pairwise(RECORDS[name]):
        swap = {one: other, other: one}
        monkeypatch.setattr(constants, "RECORDS", {**RECORDS, name: tuple(swap.get(it, it) for it in RECORDS[name])})
        script.cache_clear()
        life.seen = {}
        try:
            unseen += [(one, other)] * (repr(await life.live()) == expected)
        except Exception:  # noqa: BLE001 - whatever stops it has seen it
            continue
    assert [] == unseen


@pytest.mark.parametrize("name", sorted(RECORDS))
def test_each_field_is_used_by_the_texts(name: str) -> None:
    """A field that Python packs for nobody is no field; one that is missing there is an unknown constant."""
    whole = "\n".join(map(texts.read, PARTS))
    rows = " ".join(re.findall(rf"\b{name} \{{([^}}]*)\}}", whole))
    names = f"(?:{name}|JUDGE)" if name.startswith("JUDGE_") else name  # those begin as JUDGE does
    used = {*re.findall(rf"\b{names}\.(\w+)", whole), *re.findall(r"(\w+) = ", rows)}
    assert "FIELDS" in used or set(RECORDS[name]) <= used


@pytest.mark.parametrize("part", PARTS)
def test_no_text_counts_by_hand(part: str) -> None:
    """Neither arguments nor fields that were read are taken by number; where there is one argument, it is the first."""
    text = texts.read(part)
    assert [] == re.findall(r"ARGV\[(?!1\])\d+\]|ARGV\[\w+ \+ \d+\]|\bv\[\d+\]|WIDTH = \d", text)


def test_a_row_that_lacks_a_field_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """One field less in Lua than in Python, and one more."""
    monkeypatch.setattr(constants, "RECORDS", {**RECORDS, "HEAD": (*RECORDS["HEAD"], "mood")})
    script.cache_clear()
    with pytest.raises(KeyError, match=r"HEAD .* is not that record: mood"):
        script("claim", Terms(), None, shebang=False)
    monkeypatch.setattr(constants, "RECORDS", {**RECORDS, "HEAD": RECORDS["HEAD"][1:]})
    with pytest.raises(KeyError, match=r"HEAD .* is not that record: id"):
        script("claim", Terms(), None, shebang=False)
    script.cache_clear()


def test_every_operation_is_written_out() -> None:
    """No name of a record is left in a text that is sent."""
    for operation in OPERATIONS:
        text = script(operation, Terms(), None, shebang=False).text
        assert [] == re.findall(rf"\b(?:{'|'.join(RECORDS)})(?:\.| \{{)", text)
