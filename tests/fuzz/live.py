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

from lorapool.shared.tasks import cancel_and_wait
from tests.containment.bystanders import Bystanders
from tests.containment.pool import ContainedPool, contained
from tests.fuzz.caller import Caller, chores_of
from tests.fuzz.campaign import Tally
from tests.fuzz.scribbler import Scribbler
from tests.fuzz.target import Finding, where

PAUSE_S = 0.004  # between two writes


class Outcome:
    """What came of a run; ``cases`` counts writes and calls."""

    def __init__(self, seed: str, on_turn: Callable[[Tally], None]) -> None:
        self.tally, self._seed, self._on_turn, self._began = Tally("live"), seed, on_turn, time.monotonic()

    def found(self, kind: str, what: str, case: object) -> None:
        self.tally.findings.setdefault(kind, Finding("live", self._seed, kind, what, ascii(case)[:1500]))

    def complain(self, call: str, error: BaseException) -> None:
        """Of a call that ended by something else than a typed error."""
        self.found(f"{call}{where(error)}", repr(error), call)

    def count(self, cases: int) -> None:
        self.tally.cases, self.tally.seconds = cases, time.monotonic() - self._began
        self._on_turn(self.tally)

    def judge(self, pool: ContainedPool, bystanders: Bystanders, scribbler: Scribbler) -> None:
        """Workers live, bystanders have what they asked for."""
        for name, worker in pool.workers.items():
            if worker.process.poll() is not None:
                self.found(f"worker left: {_last_words(worker.log())}", name, list(scribbler.latest))
        if wrong := bystanders.sample.wrong():
            self.found("bystander's job", wrong[0], list(scribbler.latest))


async def fuzzed(seconds: float, seed: str, on_turn: Callable[[Tally], None] = lambda _: None) -> Tally:
    """Junk for so long, and what came of it."""
    outcome, random = Outcome(seed, on_turn), Random(f"live {seed}")
    try:
        async with contained(workers=2, report=lambda _: None) as pool:
            await pool.adapters("foreign", "strange")
            await pool.calm(1.0)
            scribbler = Scribbler(random, tuple(pool.workers), (pool.client._name, pool._bystander._name))
            caller = Caller(pool.client, chores_of(pool.redis), random, outcome.complain)
            async with pool.bystanders() as bystanders:
                calling = asyncio.create_task(caller.run())
                try:
                    await _scribble(pool, scribbler, seconds, lambda writes: outcome.count(writes + caller.calls))
                finally:
                    await cancel_and_wait(calling)
                await bystanders.served(20)
            outcome.judge(pool, bystanders, scribbler)
            for _ in range(3):
                await pool.fsck()
    except Exception as error:  # noqa: BLE001 - of the pool's own judgement; anything is a finding
        outcome.found(f"pool{where(error)}", repr(error)[:500], seed)
    return outcome.tally


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


def _last_words(log: str) -> str:
    """The last line that names an error."""
    told = [line.strip(" |") for line in log.splitlines() if "Error" in line and not line.startswith("{")]
    return told[-1][:300] if told else log.splitlines()[-1][:300] if log else "without a word"
