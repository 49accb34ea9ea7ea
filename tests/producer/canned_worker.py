"""A worker without a model: claims through the real Queue and answers with canned text, one word a token.

What it does with a job stands in the prompt's first word: ``fail`` fails it, ``hang`` holds it until it is cancelled,
``die`` emits three words and never speaks again, all else is answered. Adapters whose id begins with ``bad`` it
refuses. It beats, so that clients see a live worker.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Literal

from redis.asyncio import Redis

from lorapool.shared.codec import decode_job, encode_detail
from lorapool.shared.job import Job
from lorapool.shared.queue.protocol import ClaimedJob, Delta, JobLease, Settlement
from lorapool.shared.server.redis_client import connect
from lorapool.shared.server.settings import redis_settings
from lorapool.shared.tasks import cancel_and_wait
from tests.parts import Queue, catalog_of

DIGEST = "d" * 64


def answer_to(job: Job) -> str:
    """What the canned worker says, the same for every attempt."""
    asked = job.prompt if job.prompt is not None else job.messages[-1].content  # type: ignore[index]
    words = f"{job.ref} heard: {asked}".split(" ")
    return " ".join(words[: job.params.max_new_tokens])


def words_of(text: str) -> list[str]:
    """Tokens: each word with the space before it."""
    first, *rest = text.split(" ")
    return [first, *(f" {word}" for word in rest)]


class CannedWorker:
    """``word_s`` is the time a word takes."""

    def __init__(
        self, redis: Redis, pool: str, *, name: str = "canned", word_s: float = 0.0, lease_ms: int = 15_000
    ) -> None:
        self.name, self.word_s, self.lease_ms = name, word_s, lease_ms
        self.queue = Queue(redis, pool)
        self.catalog = catalog_of(redis, pool)
        self._claims = 0
        self._duties: list[asyncio.Task[None]] = []
        self._running: dict[str, tuple[ClaimedJob, asyncio.Task[None]]] = {}

    def start(self) -> None:
        """Claim, answer and beat, until ``stop``."""
        self._duties = [asyncio.create_task(duty) for duty in (self._claiming(), self._beating())]

    async def stop(self) -> None:
        """Vanish: what runs is neither settled nor released."""
        await cancel_and_wait(*self._duties)
        await cancel_and_wait(*(task for _, task in self._running.values()))
        await self.queue.close()

    async def _claiming(self) -> None:
        while True:
            self._claims += 1
            view = await self.queue.tick(self.name)
            refs = [waiting.ref for waiting in view.waiting]
            lease = f"{self.name}-{self._claims}-{time.monotonic_ns()}"
            claim = await self.queue.claim(self.name, lease, refs, 64, 64, self.lease_ms)
            for job in claim.jobs:
                self._running[job.job_id] = (job, asyncio.create_task(self._answer(job)))
            if not claim.jobs:
                await self.queue.wait_for_work(self.name, 0.05)

    async def _beating(self) -> None:
        while True:
            beat = {"device": "cpu", "dtype": "float32", "held": len(self._running), "resident": "cfo@1.0.0 ceo@1.0.0"}
            await self.queue.members.beat(self.name, beat, 5_000)
            for record in await self.catalog.pending():
                bad = record.id.startswith("bad")
                verdict = ("refused", "no tensor of it applies") if bad else ("ready", "")
                await self.catalog.decide(record.ref, *verdict)
            held = [JobLease(job.job_id, job.lease) for job, _ in self._running.values()]
            if held:
                renewed = await self.queue.renew(held, self.lease_ms)
                await self._let_go(renewed.cancelled, "cancelled")
                await self._let_go(renewed.overdue, "expired")
            await asyncio.sleep(0.05)

    async def _let_go(self, job_ids: tuple[str, ...], outcome: Literal["cancelled", "expired"]) -> None:
        for job_id in job_ids:
            claimed, task = self._running.pop(job_id)
            task.cancel()
            await self.queue.settle([Settlement(job_id, claimed.lease, outcome)])

    async def _answer(self, claimed: ClaimedJob) -> None:
        job = decode_job(claimed.payload)
        text = answer_to(job)
        order = (job.prompt or "").partition(" ")[0]
        dies = order == "die" and claimed.attempt == 1
        words = words_of(text)[:3] if dies else words_of(text)
        for offset, word in enumerate(words):
            if self.word_s:
                await asyncio.sleep(self.word_s)
            if job.stream:
                await self.queue.emit([Delta(claimed.job_id, claimed.lease, claimed.attempt, offset, word, (offset,))])
        if dies or order == "hang":
            await asyncio.Event().wait()
        await self.queue.settle([self._settlement(claimed, job, text, failed=order == "fail")])
        self._running.pop(claimed.job_id, None)

    def _settlement(self, claimed: ClaimedJob, job: Job, text: str, *, failed: bool) -> Settlement:
        if failed:
            message = "9000 tokens exceed 2048"
            return Settlement(claimed.job_id, claimed.lease, "failed", error="PromptTooLong", message=message)
        tokens = len(words_of(text))
        return Settlement(
            claimed.job_id,
            claimed.lease,
            "succeeded",
            text=text,
            finish_reason="length" if tokens == job.params.max_new_tokens else "eos_token",
            prompt_tokens=len((job.prompt or "chat").split(" ")),
            completion_tokens=tokens,
            device="cpu",
            dtype="float32",
            resident=True,
            detail=encode_detail(range(tokens), [-0.5] * tokens if job.params.logprobs else None),
        )


@asynccontextmanager
async def serving(redis_url: str, pool: str, **options: float | str) -> AsyncIterator[CannedWorker]:
    """A canned worker at work in this event loop."""
    redis = connect(redis_settings(redis_url))
    worker = CannedWorker(redis, pool, **options)  # type: ignore[arg-type]  # name, word_s, lease_ms
    worker.start()
    try:
        yield worker
    finally:
        await worker.stop()
        await redis.aclose()
