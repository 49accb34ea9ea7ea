"""The live target: junk in every key that workers and clients read, on a real server, while sound jobs run beside.

Two worker processes and their bystanders (tests/containment): whatever is written, no worker leaves, the bystanders'
jobs succeed with the right tokens, and calls of a client end in time with an answer or a typed error.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from contextlib import suppress
from random import Random

from redis.exceptions import ResponseError

from lorapool.producer.patience import end
from tests.containment.pool import ContainedPool, contained
from tests.fuzz.caller import Caller
from tests.fuzz.campaign import Tally
from tests.fuzz.scribbler import Scribbler
from tests.fuzz.target import Finding, where

PAUSE_S = 0.004  # between two writes


async def fuzzed(seconds: float, seed: str, on_turn: Callable[[Tally], None] = lambda _: None) -> Tally:
    """What came of it. ``cases`` counts writes and calls."""
    tally = Tally("live")
    random = Random(f"live {seed}")
    began = time.monotonic()

    def found(kind: str, what: str, case: object) -> None:
        tally.findings.setdefault(kind, Finding("live", seed, kind, what, ascii(case)[:1500]))

    try:
        async with contained(workers=2, report=lambda _: None) as pool:
            await pool.adapters("foreign", "strange")
            await pool.calm(1.0)
            scribbler = Scribbler(random, tuple(pool.workers), (pool.client._name, pool._bystander._name))
            caller = Caller(pool.client, random, lambda name, error: found(f"{name}{where(error)}", repr(error), name))
            async with pool.bystanders() as bystanders:
                calling = asyncio.create_task(caller.run())
                try:
                    await _scribble(
                        pool, scribbler, seconds, lambda n: on_turn(_counted(tally, began, n + caller.calls))
                    )
                finally:
                    await end(calling)
                await bystanders.served(20)
            _counted(tally, began, tally.cases)
            for name, worker in pool.workers.items():
                if worker.process.poll() is not None:
                    found(f"worker left: {_last_words(worker.log())}", name, list(scribbler.latest))
            if wrong := bystanders.sample.wrong():
                found("bystander's job", wrong[0], list(scribbler.latest))
            for _ in range(3):
                await pool.fsck()
    except AssertionError as error:
        found("pool", str(error)[:500], seed)
    return tally


async def _scribble(pool: ContainedPool, scribbler: Scribbler, seconds: float, on_write: Callable[[int], None]) -> None:
    give_up_at, writes = time.monotonic() + seconds, 0
    while time.monotonic() < give_up_at and all(worker.process.poll() is None for worker in pool.workers.values()):
        for command in scribbler.commands():
            with suppress(ResponseError):  # junk that the server itself refuses
                await pool.redis.execute_command(*command)
            writes += 1
        if writes % 50 == 0:
            on_write(writes)
        await asyncio.sleep(PAUSE_S)
    on_write(writes)


def _counted(tally: Tally, began: float, cases: int) -> Tally:
    tally.cases, tally.seconds = cases, time.monotonic() - began
    return tally


def _last_words(log: str) -> str:
    """The last line that names an error."""
    told = [line.strip(" |") for line in log.splitlines() if "Error" in line and not line.startswith("{")]
    return told[-1][:300] if told else log.splitlines()[-1][:300] if log else "without a word"
