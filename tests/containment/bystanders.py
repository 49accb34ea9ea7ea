"""Bystanders: agents that have nothing to do with the fault. What they ask for, when it comes, and whether it is right.

They send on schedule, whatever became of what they sent before, so that a stall counts for all who met it. Like any
agent they insist while the server does not answer: the wait counts, the refusal does not.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from lorapool.producer.client.client import Client
from lorapool.producer.client.handle import JobHandle
from lorapool.shared.errors import LorapoolError, RedisUnreachable
from lorapool.shared.job import Result
from lorapool.shared.server.keys import new_job_id
from tests.fake_model import expected
from tests.fleet import until
from tests.machine import Meanwhile

PATIENCE_S = 60.0  # for one job; whoever waits longer counts as lost
TOKENS = 5


@dataclass(frozen=True)
class Outcome:
    """One light job: when it was sent, when its answer came, and what was wrong with it, if anything."""

    sent_s: float
    ended_s: float
    wrong: str = ""

    @property
    def latency_s(self) -> float:
        return self.ended_s - self.sent_s


@dataclass(frozen=True)
class Sample:
    """What happened to the bystanders for a while."""

    outcomes: tuple[Outcome, ...]

    def quantile_s(self, share: float) -> float:
        """The latency that this share of the jobs stayed within."""
        ordered = sorted(outcome.latency_s for outcome in self.outcomes)
        assert ordered, "no bystander sent a job"
        return ordered[min(int(share * len(ordered)), len(ordered) - 1)]

    def wrong(self) -> list[str]:
        return [outcome.wrong for outcome in self.outcomes if outcome.wrong]

    def disturbed_s(self, limit_s: float) -> float:
        """For how long somebody waited whose job took longer than that."""
        slow = sorted((one.sent_s, one.ended_s) for one in self.outcomes if one.latency_s > limit_s)
        total_s = until_s = 0.0
        for sent_s, ended_s in slow:
            total_s += max(0.0, ended_s - max(sent_s, until_s))
            until_s = max(until_s, ended_s)
        return total_s

    def __str__(self) -> str:
        p50, p95, worst = (1000 * self.quantile_s(share) for share in (0.5, 0.95, 1.0))
        return f"p50 {p50:.0f} p95 {p95:.0f} worst {worst:.0f} ms of {len(self.outcomes)}"


class Bystanders:
    """As an async context: they send until it is left, and all their answers are awaited.

    ``digests``: the adapters that they ask, one an agent. ``calm``: what is normal, for ``judge``; ``report`` is told
    the judgement in a line.
    """

    def __init__(
        self,
        client: Client,
        digests: Mapping[str, str],
        *,
        every_s: float,
        calm: Sample | None = None,
        report: Callable[[str], None] = print,
        patience_s: float = PATIENCE_S,
    ) -> None:
        self._client, self._digests, self._every_s, self._patience_s = client, digests, every_s, patience_s
        self._calm, self._report = calm, report
        self._jobs: set[asyncio.Task[None]] = set()
        self._agents: list[asyncio.Task[None]] = []
        self._outcomes: list[Outcome] = []
        self._meanwhile = Meanwhile()

    async def __aenter__(self) -> Self:
        self._meanwhile = Meanwhile()
        step_s = self._every_s / max(1, len(self._digests))
        self._agents = [
            asyncio.create_task(self._send(ref, digest, number * step_s))
            for number, (ref, digest) in enumerate(self._digests.items())
        ]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for agent in self._agents:
            agent.cancel()
        if error is not None:
            for job in self._jobs:
                job.cancel()
        await asyncio.gather(*self._agents, *self._jobs, return_exceptions=True)

    @property
    def sample(self) -> Sample:
        """What has happened so far."""
        return Sample(tuple(self._outcomes))

    async def served(self, jobs: int, within_s: float = PATIENCE_S) -> None:
        """Wait until that many more of their jobs have ended."""
        wanted = len(self._outcomes) + jobs
        await until(lambda: len(self._outcomes) >= wanted, within_s)

    def judge(self, *, factor: float, slack_s: float = 0.5) -> Sample:
        """All succeeded with the right tokens, and 95 of 100 within ``factor`` times calm's p95 and ``slack_s``.

        The slack is the machine's: other processes may take the cores for a moment; where they do for long, there is
        more of both.
        """
        assert self._calm is not None, "call pool.calm() before the fault"
        found, slowdown = self.sample, self._meanwhile.slowdown()
        limit_s = slowdown * (factor * self._calm.quantile_s(0.95) + slack_s)
        self._report(f"calm {self._calm}; then {found}; disturbed for {found.disturbed_s(limit_s):.1f} s")
        assert [] == found.wrong()
        assert found.quantile_s(0.95) <= limit_s, (
            f"bystanders: {found}, calm: {self._calm}; p95 must stay within {limit_s:.2f} s"
        )
        return found

    async def _send(self, adapter: str, digest: str, begin_s: float) -> None:
        await asyncio.sleep(begin_s)
        for number in range(1_000_000):
            job = asyncio.create_task(self._ask(adapter, digest, f"light {number}"))
            self._jobs.add(job)
            job.add_done_callback(self._jobs.discard)
            await asyncio.sleep(self._every_s)

    async def _ask(self, adapter: str, digest: str, prompt: str) -> None:
        sent_s = time.monotonic()
        wrong = ""
        try:
            async with asyncio.timeout(self._patience_s):
                result = await self._insist(adapter, prompt)
            if result.token_ids != expected(prompt, digest, TOKENS):
                wrong = f"{adapter}, {prompt!r}: wrong tokens {result.token_ids} from {result.worker}"
        except TimeoutError:
            wrong = f"{adapter}, {prompt!r}: no answer within {self._patience_s:g} s"
        except LorapoolError as error:
            wrong = f"{adapter}, {prompt!r}: {type(error).__name__}: {error}"
        self._outcomes.append(Outcome(sent_s, time.monotonic(), wrong))

    async def _insist(self, adapter: str, prompt: str) -> Result:
        job_id, handle = new_job_id(), None
        while True:
            try:
                handle = handle or await self._submit(adapter, prompt, job_id)
                return await handle.result()
            except RedisUnreachable:
                await asyncio.sleep(0.05)

    async def _submit(self, adapter: str, prompt: str, job_id: str) -> JobHandle:
        agent = f"agent-{adapter.partition('@')[0]}"
        return await self._client.submit(adapter, prompt, max_new_tokens=TOKENS, agent=agent, job_id=job_id, wait=True)
