"""Scribbles: entries that nobody can read, in keys that workers and clients read; each can be told by its name."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from random import Random
from typing import Any

from lorapool.shared.server.keys import Keys, PoolKeys

KEYS, POOL = Keys("default"), PoolKeys("default")
NAME = "scribble"
JUNK = b"\xff\xfe scribble \x00 \xed\xa0\x80"  # no UTF-8
PASSES_MS = 60_000  # what a raw client wrote goes by itself
FAR = 9e15
SETS = ("ready", "leases", "delayed", "deadlines", "suspects", "wake")

Command = tuple[Any, ...]


def scribbles(random: Random, workers: Sequence[str], inboxes: Sequence[str]) -> Iterator[Command]:
    """Some for each reader: commands, in order."""
    for worker in workers:
        ctl = KEYS.ctl(worker)
        yield "XADD", ctl, "*", JUNK, JUNK, b"op", b"cancel"
        yield "XADD", ctl, "*", b"op", JUNK, b"job_id", NAME
        yield "PEXPIRE", ctl, PASSES_MS
    for client in inboxes:
        yield "XADD", KEYS.inbox(client), "*", JUNK, JUNK
        yield "XADD", KEYS.inbox(client), "*", NAME, b"succeeded\tno\tanswer\n"
    for name in SETS:
        yield "ZADD", KEYS.one(name), random.choice((0, 1, FAR)), JUNK
        yield "ZADD", KEYS.one(name), 1, NAME
    wake = KEYS.wake(random.choice(workers))
    yield "DEL", wake
    yield "SET", wake, JUNK, "PX", PASSES_MS
    yield "SET", POOL.worker(NAME), JUNK, "PX", PASSES_MS
    yield "ZADD", POOL.workers, FAR, JUNK
    yield "SADD", POOL.pending, JUNK, f"{NAME}@1"
    yield "ZADD", POOL.adapters, 1, JUNK


def wiped() -> Iterator[Command]:
    """What readers step over and leave where it is."""
    yield "SREM", POOL.pending, JUNK, f"{NAME}@1"
    yield "ZREM", POOL.adapters, JUNK
