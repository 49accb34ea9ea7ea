"""Scribbler: what is written into the keys of a live pool: all that the server takes, sound in parts.

Keys that all adapters share get strange members and fields; keys of an adapter, agent, job or worker of the fuzzer's
own get anything at all. Knows the keys; runs no command.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from random import Random
from typing import Any

from lorapool.shared.codec import encode_job
from lorapool.shared.job import Job
from lorapool.shared.server.keys import LANES, Keys, PoolKeys
from tests.fuzz import mutation
from tests.fuzz.stored import ADAPTER, ANSWER, ENTRY, HEAD, LETTER, RECORD

KEYS, POOL = Keys("default"), PoolKeys("default")
VICTIMS = ("foreign@1", "foreign@2", "strange@1")
JOBS = tuple(f"fuzz-{n}" for n in range(12))
Command = tuple[Any, ...]


class Scribbler:
    """Draws what is written: a command a call."""

    def __init__(self, random: Random, workers: tuple[str, ...], inboxes: tuple[str, ...]) -> None:
        self._random, self._workers, self._inboxes = random, workers, inboxes
        self.latest: deque[Command] = deque(maxlen=12)

    def commands(self) -> Iterator[Command]:
        """The next things to write, in order."""
        draw = self._random.choice(
            (self._shared, self._shared, self._own, self._own, self._job, self._queued, self._stream)
        )
        for command in draw():
            self.latest.append(command)
            yield command

    def _bytes(self, sample: bytes = b"") -> bytes:
        chance = self._random.random()
        if not sample or chance < 0.5:
            return mutation.junk(self._random)
        return mutation.changed_bytes(self._random, sample) if chance < 0.9 else sample

    def _score(self) -> str:
        return self._random.choice(("0", "1", "-1", "inf", "-inf", "1e308", "1e-300", "1700000000000.5", "9e15"))

    def _member(self) -> bytes:
        return self._random.choice(
            (*(name.encode() for name in (*JOBS, *VICTIMS)), self._bytes(), self._bytes(b"foreign@1"))
        )

    def _shared(self) -> Iterator[Command]:
        """Strange members and fields in what everybody reads."""
        zsets = [KEYS.one(name) for name in ("ready", "served", "leases", "delayed", "deadlines", "suspects")]
        match self._random.randrange(6):
            case 0 | 1:
                yield "ZADD", self._random.choice(zsets), self._score(), self._member()
            case 2:
                key = self._random.choice((POOL.adapters, POOL.schedules, POOL.workers, POOL.seen))
                yield "ZADD", key, self._score(), self._member()
            case 3:
                key = self._random.choice(
                    [KEYS.one(name) for name in ("waiting", "running", "held", "last_worker", "refused")]
                )
                yield "HSET", key, self._member(), self._bytes(b"3")
            case 4:
                key = self._random.choice((POOL.aliases, POOL.active, POOL.usage, POOL.chores, POOL.config))
                yield "HSET", key, self._random.choice((b"foreign", b"chief", self._bytes())), self._bytes(b"foreign@1")
            case _:
                yield "SADD", self._random.choice((POOL.pending, POOL.serving)), self._member()
                yield (
                    "XADD",
                    KEYS.one("dead"),
                    "*",
                    *self._fields({b"job": b"fuzz-1", b"reason": b"Poisonous", b"message": LETTER[4]}),
                )

    def _fields(self, sample: dict[bytes, bytes]) -> list[bytes]:
        found = {name: self._bytes(value) if self._random.random() < 0.4 else value for name, value in sample.items()}
        for _ in range(self._random.randrange(3)):
            found[self._bytes()] = self._bytes()
        for name in [name for name in found if self._random.random() < 0.15]:
            del found[name]
        return [part for pair in found.items() for part in pair] or [b"x", b""]

    def _own(self) -> Iterator[Command]:
        """A key of one adapter, agent, schedule or worker becomes something else, or its fields do."""
        victim, worker = self._random.choice(VICTIMS), self._random.choice(self._workers)
        names = (
            KEYS.adapter(victim), KEYS.stats(victim), KEYS.agent("fuzz"), KEYS.window(victim), KEYS.stream(victim),
            KEYS.stream(victim, "retry"), KEYS.stream(victim, "low"), KEYS.claim(worker), KEYS.wake(worker),
            KEYS.one(f"idle:{worker}"), KEYS.one(f"alone:{worker}"), KEYS.ctl(worker), KEYS.one("reaper"),
            KEYS.one("drainer"),
            KEYS.one(f"report:{worker}"), KEYS.wake(), POOL.adapter(victim), POOL.moves("chief"),
            f"{POOL.prefix}before:chief",
            POOL.schedule("daily"), POOL.worker("ghost"), KEYS.one("malformed"), POOL.dead, POOL.maintenance,
        )  # fmt: skip
        key = self._random.choice(names)
        match self._random.randrange(8):
            case 0:
                yield "SET", key, self._bytes(b"1700000000000 1700000000000 1000")
            case 1:
                yield "DEL", key
                yield self._random.choice(("RPUSH", "SADD")), key, self._bytes(b"17000 set - foreign@1 ab")
            case 2:
                yield "DEL", key
                yield "ZADD", key, self._score(), self._bytes(b"1")
            case 3:
                yield "DEL", key
            case 4:
                yield "HSET", POOL.adapter(victim), *self._fields(ADAPTER)
            case 5:
                yield "HSET", POOL.schedule("daily"), *self._fields(ENTRY)
                yield "ZADD", POOL.schedules, self._score(), "daily"
            case 6:
                limits = {
                    b"state": b"open",
                    b"max_inflight": b"2",
                    b"weight": b"1",
                    b"served": b"17",
                    b"agent_window": b"64",
                }
                yield "HSET", KEYS.adapter(victim), *self._fields(limits)
            case _:
                yield (
                    "HSET",
                    self._random.choice((key, POOL.worker("ghost"), KEYS.stats(victim))),
                    self._bytes(b"state"),
                    self._bytes(b"1"),
                )

    def _job(self) -> Iterator[Command]:
        """A job's record, request or tokens."""
        job = self._random.choice(JOBS)
        match self._random.randrange(6):
            case 0:
                yield "SET", self._random.choice((KEYS.job(job), KEYS.tokens(job))), self._bytes(HEAD)
            case 1:
                yield "SET", KEYS.payload(job), self._bytes(encode_job(Job(id=job, ref=VICTIMS[0], prompt="Hi")))
            case 2:
                yield "XADD", KEYS.tokens(job), "*", *self._fields({b"kind": b"delta", b"attempt": b"1", b"text": b"a"})
            case 3:
                yield "DEL", self._random.choice((KEYS.job(job), KEYS.payload(job)))
            case _:
                yield "HSET", KEYS.job(job), *self._fields({**RECORD, **self._live()})

    def _live(self) -> dict[bytes, bytes]:
        state = self._random.choice((b"queued", b"running", b"delayed", b"failed", b"succeeded"))
        return {
            b"state": state, b"ref": self._random.choice(VICTIMS).encode(), b"lost": b"0", b"fence": b"0",
            b"cost": b"3",
            b"lease": b"b.1", b"stream": b"0", b"client": self._random.choice(self._inboxes).encode(),
            b"lane": b"normal",
            b"deadline_ms": self._random.choice((b"", b"1", b"99999999999999")), b"entry": b"1-1",
            b"priority": b"normal",
        }  # fmt: skip

    def _queued(self) -> Iterator[Command]:
        """A job in its place, by hand, more or less as enqueue would put it there."""
        job, victim = self._random.choice(JOBS), self._random.choice(VICTIMS)
        yield (
            "HSET",
            KEYS.job(job),
            *self._fields({**RECORD, **self._live(), b"state": b"queued", b"ref": victim.encode()}),
        )
        yield (
            "SET",
            KEYS.payload(job),
            self._bytes(encode_job(Job(id=job, ref=victim, prompt="Hi", params={"max_new_tokens": 2}))),
        )
        yield (
            "XADD",
            KEYS.stream(victim, self._random.choice(LANES)),
            "*",
            b"job",
            job.encode(),
        )
        yield "HINCRBY", KEYS.one("waiting"), victim, 1
        yield "ZADD", KEYS.one("ready"), "1", victim

    def _stream(self) -> Iterator[Command]:
        """An entry in a stream that a worker or a client reads."""
        match self._random.randrange(3):
            case 0:
                request = {
                    b"op": b"cancel",
                    b"job_id": b"fuzz-1",
                    b"lease": b"b.1",
                    b"ref": b"foreign@1",
                    b"token": b"t",
                }
                request[b"op"] = self._random.choice((b"cancel", b"load", b"validate", b"verify"))
                yield "XADD", KEYS.ctl(self._random.choice(self._workers)), "*", *self._fields(request)
            case 1:
                yield (
                    "XADD",
                    KEYS.inbox(self._random.choice(self._inboxes)),
                    "*",
                    *self._fields({b"fuzz-1": ANSWER, b"fuzz-2": b"failed"}),
                )
            case _:
                yield "XADD", KEYS.stream(self._random.choice(VICTIMS)), "*", *self._fields({b"job": b"fuzz-3"})
