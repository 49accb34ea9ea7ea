"""A server, a queue, a clock and a model side by side: what the rules and invariants of the claim machine stand on."""

from __future__ import annotations

import asyncio
from collections import Counter
from random import Random
from typing import Any, ClassVar

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine

from lorapool.shared.access.key_book import KeyBook
from lorapool.shared.job import Job
from lorapool.shared.queue.protocol import ClaimedJob, Finding, Settlement
from lorapool.shared.server.keys import Keys
from tests.parts import Queue
from tests.shared.queue.claim_model import TERMS, WAITING, Model, ModelJob
from tests.shared.queue.lost_replies import Forgetful

START_MS = 1_800_057_600_000 - 15_000  # before midnight: quotas are by day
REFS = ("ada@1", "bob@1", "_base")
OPERATIONS = (
    "cancel",
    "claim",
    "dead",
    "emit",
    "enqueue",
    "expire",
    "explain",
    "fsck",
    "key_add",
    "key_list",
    "key_revoke",
    "limits",
    "lose",
    "open",
    "purge_dead",
    "purge_waiting",
    "redrive",
    "release",
    "renew",
    "set_adapter_state",
    "settle",
    "tick",
)
FOR_EVER = -1  # what PTTL says of a key that stays; of one that has just gone it says -2
LASTING = ("adapter:", "stats:", "dead", "key:", "keys", "secrets", "audit")  # the only keys that may stay for ever


class ClaimBench(RuleBasedStateMachine):
    """Subclasses give ``connect``, and ``lost``: replies lost so far, by script."""

    lost: ClassVar[Counter[str]]

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.model = Model()
        self.now = START_MS
        self.made = self.leased = self.steps = 0
        self.losing = Random(0)
        self.redis = self.do(self.connect())
        self.keys = Keys("machine")
        clock = self.keys.one("clock")
        self.forgetful: Any = Forgetful(self.redis, self.losing, self.lost)
        self.queue = Queue(self.forgetful, self.keys.pool, clock=clock, terms=TERMS)
        self.upkeep = Queue(self.forgetful, self.keys.pool, clock=clock, terms=TERMS)
        self.book = KeyBook(self.queue.connection)
        scripts = self.queue._scripts
        self.forgetful.names = {key: name for name in OPERATIONS for key in (scripts[name].sha, scripts[name].text)}

    async def connect(self) -> Any:
        raise AssertionError("a subclass brings the server")

    def do(self, awaitable: Any) -> Any:
        return self.loop.run_until_complete(awaitable)

    def teardown(self) -> None:
        try:
            self.settle_down()
        finally:
            self.do(self.queue.close())
            self.do(self.redis.aclose(close_connection_pool=True))
            self.loop.run_until_complete(self.loop.shutdown_asyncgens())
            self.loop.close()

    def settle_down(self) -> None:
        """At rest, nothing stays but what is meant to."""
        for job in self.model.of(*WAITING):
            self.do(self.queue.cancel(job.job.id))
        for job in self.model.of("running"):
            self.do(self.queue.settle([Settlement(job.job.id, job.lease, "succeeded")]))
        for key in self.do(self.redis.keys("*")):
            name = key.decode().removeprefix(self.keys.prefix)
            lasts = name.startswith(LASTING) or name == "clock"
            assert lasts or self.do(self.redis.pttl(key)) != FOR_EVER, f"{name} would stay for ever"
        assert [] == self.fsck()

    def fsck(self) -> list[Finding]:
        """A whole check."""
        findings: list[Finding] = []
        cursor = ""
        while True:
            step = self.do(self.upkeep.fsck(cursor))
            findings += step.findings
            cursor = step.cursor
            if not cursor:
                return findings

    def set_clock(self, now: int) -> None:
        self.now = self.model.now = now
        self.do(self.redis.set(self.keys.one("clock"), now))

    def pick(self, data: st.DataObject) -> ModelJob | None:
        jobs = list(self.model.jobs.values())
        return data.draw(st.sampled_from(jobs)) if jobs else None

    def refused(self, job: Job, error: type[Exception]) -> None:
        self.raises(error, self.queue.enqueue(job))

    def raises(self, error: type[Exception], awaitable: Any) -> None:
        try:
            outcome = self.do(awaitable)
        except error:
            return
        raise AssertionError(f"expected {error.__name__}, got {outcome}")

    def job_of(self, claimed: ClaimedJob) -> ModelJob:
        return self.model.jobs[claimed.job_id.removeprefix("0.")]

    def holds(self, claimed: ClaimedJob) -> bool:
        job = self.job_of(claimed)
        return job.state == "running" and job.lease == claimed.lease

    def hash(self, name: str, without: str = "") -> dict[str, int]:
        found = self.do(self.redis.hgetall(self.keys.one(name)))
        return {field.decode(): int(value) for field, value in found.items() if field.decode() != without}

    def members(self, name: str) -> set[str]:
        return {member.decode() for member in self.do(self.redis.zrange(self.keys.one(name), 0, -1))}
