"""CannedPool: a pool that gives answers from a test, on a real server, through the real protocol.

No model, no torch, no worker process: a thread of this one claims jobs as a worker does, and answers with what it was
given. So a test sees what its users would: streams, errors, retries of the client, counters.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Any, Self, TypeVar

from lorapool.producer.client.client import Client
from lorapool.producer.client.loop_thread import LoopThread
from lorapool.producer.sync import Client as SyncClient
from lorapool.producer.testing.canned_reply import CannedReply, Reply
from lorapool.shared.catalog.catalog import AdapterRecord, Catalog, PoolConfig
from lorapool.shared.codec import decode_job, encode_detail
from lorapool.shared.connection import PoolConnection
from lorapool.shared.errors import InvalidRequest
from lorapool.shared.fleet.membership import Membership
from lorapool.shared.fleet.requests import WorkerRequests
from lorapool.shared.job import BASE_REF, NO_MORE, FinishReason, Job, More, SamplingParams, TokenLogprob
from lorapool.shared.queue.operator import OperatorQueue
from lorapool.shared.queue.protocol import ClaimedJob, Delta, JobLease, Settlement
from lorapool.shared.queue.worker import WorkerQueue
from lorapool.shared.server.redis_client import connect
from lorapool.shared.server.settings import redis_settings
from lorapool.shared.tasks import cancel_and_wait

LEASE_MS = 15_000
WORKER = "canned"
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class CannedRequest:
    """A job as it reached the pool. ``adapter`` is its id; ``text`` the prompt, its token ids, or the last message."""

    job_id: str
    adapter: str | None
    version: str
    agent: str
    text: str
    job: Job


Answer = Reply | Mapping[str, Reply] | Callable[[CannedRequest], Reply]
"""What an adapter says: always the same, by prompt, or what a function returns; one that raises fails the job. A reply
is a text, the call of a tool, or several of them in a list."""


class CannedFailure(Exception):
    """Raise it in an answer: the job fails with this ``error`` and ``message``."""

    def __init__(self, error: str, message: str = "") -> None:
        super().__init__(message)
        self.error = error


class CannedPool:
    """Use as ``with CannedPool(url) as pool``. Its methods may be called from any thread, inside an event loop too.

    An adapter that was given no answer says which; whatever is registered is ready at once. ``requests`` are all that
    came, in order. ``delay_s`` is how long each answer takes.
    """

    def __init__(self, redis_url: str, name: str | None = None) -> None:
        self.redis_url, self.name = redis_url, name or f"canned-{secrets.token_hex(4)}"
        self.requests: list[CannedRequest] = []
        self.delay_s = 0.0
        self._answers: dict[str | None, Answer] = {}
        self._failures: dict[str | None, list[CannedFailure]] = {}
        self._thread = LoopThread()
        self._duties: list[asyncio.Task[None]] = []
        self._held: dict[str, tuple[ClaimedJob, asyncio.Task[None]]] = {}

    def __enter__(self) -> Self:
        self._run(self._start())
        return self

    def __exit__(self, *_: object) -> None:
        self._run(self._stop())
        self._thread.stop()

    # -- what a test says

    def answer(self, adapter: str | None, answer: Answer, *, version: str = "1", aliases: Sequence[str] = ()) -> None:
        """What ``adapter`` (an id; None is the base model) says from now on; it is registered if it is new."""
        self._answers[adapter] = answer
        if adapter is not None:
            self._run(self._register(adapter, version, aliases))

    def fail(self, adapter: str | None, error: str = "CannedFailure", message: str = "", *, times: int = 1) -> None:
        """Let the next ``times`` jobs of ``adapter`` fail, with this error; it is registered if it is new."""
        self._failures.setdefault(adapter, []).extend([CannedFailure(error, message)] * times)
        if adapter is not None:
            self._run(self._register(adapter, "1", ()))

    def client(self, **options: Any) -> Client:
        """A client of this pool, to be entered with ``async with``."""
        return Client(self.redis_url, pool=self.name, **options)

    def sync_client(self, **options: Any) -> SyncClient:
        """A blocking client of this pool, to be entered with ``with``."""
        return SyncClient(self.redis_url, pool=self.name, **options)

    # -- what it does with that

    def _run(self, work: Coroutine[Any, Any, T]) -> T:
        return self._thread.run(work)

    async def _start(self) -> None:
        self._connection = connection = PoolConnection(connect(redis_settings(self.redis_url, self.name)), self.name)
        partition, self._members = connection.partition(), Membership(connection)
        self._queue, operators = WorkerQueue(partition), OperatorQueue(partition)
        self._catalog = Catalog(connection, WorkerRequests(partition, self._members), lambda _: operators)
        await self._catalog.create_or_check_config(PoolConfig(base_model="canned"))
        await self._beat()
        self._duties = [asyncio.create_task(duty) for duty in (self._claiming(), self._beating())]

    async def _stop(self) -> None:
        await cancel_and_wait(*self._duties, *(task for _, task in self._held.values()))
        await self._connection.aclose()

    async def _register(self, adapter: str, version: str, aliases: Sequence[str]) -> None:
        digest = sha256(f"{adapter}@{version}".encode()).hexdigest()
        record = AdapterRecord(
            id=adapter, version=version, digest=digest, uri=f"canned:{adapter}", aliases=tuple(aliases)
        )
        await self._catalog.register(record)
        await self._catalog.decide(record.ref, "ready")

    async def _claiming(self) -> None:
        for turn in range(1 << 62):
            waiting = [candidate.ref for candidate in (await self._queue.tick(WORKER)).waiting]
            lease = f"{WORKER}-{turn}-{secrets.token_hex(4)}"
            claim = await self._queue.claim(WORKER, lease, waiting, 64, 64, LEASE_MS)
            for job in claim.jobs:
                self._held[job.job_id] = job, asyncio.create_task(self._serve(job))
            if not claim.jobs:
                await self._queue.wait_for_work(WORKER, 0.1)

    async def _beating(self) -> None:
        while True:
            await asyncio.sleep(0.1)
            await self._beat()
            for record in await self._catalog.pending():
                await self._catalog.decide(record.ref, "ready")
            if held := [JobLease(job.job_id, job.lease) for job, _ in self._held.values()]:
                renewed = await self._queue.renew(held, LEASE_MS)
                for job_id in renewed.cancelled:
                    job, task = self._held.pop(job_id)
                    await cancel_and_wait(task)
                    await self._queue.settle([Settlement(job_id, job.lease, "cancelled")])

    async def _beat(self) -> None:
        await self._members.beat(WORKER, {"state": "running", "device": "cpu", "held": len(self._held)}, 10_000)

    async def _serve(self, claimed: ClaimedJob) -> None:
        job = decode_job(claimed.payload)
        request = _request(claimed, job)
        self.requests.append(request)
        try:
            reply = CannedReply.of(self._answer_to(request), claimed.job_id)
        except Exception as failure:  # noqa: BLE001  whatever a test's function raises is the job's end
            error = failure.error if isinstance(failure, CannedFailure) else type(failure).__name__
            settlement = Settlement(claimed.job_id, claimed.lease, "failed", error=error, message=str(failure))
        else:
            settlement = await self._told(claimed, job, reply)
        await self._queue.settle([settlement])
        self._held.pop(claimed.job_id, None)

    def _answer_to(self, request: CannedRequest) -> Reply:
        if self._failures.get(request.adapter):
            raise self._failures[request.adapter].pop(0)
        answer = self._answers.get(request.adapter)
        if answer is None:
            return f"no answer was canned for {request.adapter or 'the base model'}"
        if callable(answer):
            return answer(request)
        if not isinstance(answer, Mapping):
            return answer
        if request.text not in answer:
            raise InvalidRequest(
                f"no answer to {request.text!r:.200}; there are some to {', '.join(map(repr, answer))}"
            )
        return answer[request.text]

    async def _told(self, claimed: ClaimedJob, job: Job, reply: CannedReply) -> Settlement:
        """Say it word by word, a word being a token, up to max_new_tokens."""
        first, *rest = reply.text.split(" ")
        words = [first, *(f" {word}" for word in rest)]
        kept = words[: job.params.max_new_tokens]
        told = _told(kept, job.params) if job.params.logprobs else None
        for offset, word in enumerate(kept):
            await asyncio.sleep(self.delay_s / len(kept))
            if job.stream:
                more = More(told[offset : offset + 1]) if told else NO_MORE
                delta = Delta(claimed.job_id, claimed.lease, claimed.attempt, offset, word, (offset,), more)
                await self._queue.emit([delta])
        if job.stream and reply.pieces:
            more = More(tool_calls=reply.pieces)
            await self._queue.emit([Delta(claimed.job_id, claimed.lease, claimed.attempt, len(kept), "", (), more)])
        reason = FinishReason.EOS_TOKEN if len(kept) == len(words) else FinishReason.LENGTH
        return Settlement(
            claimed.job_id,
            claimed.lease,
            "succeeded",
            text="".join(kept),
            finish_reason=reason,
            prompt_tokens=len(job.prompt_ids or _text_of(job).split()),
            completion_tokens=len(kept),
            first_token_ms=round(time.time() * 1000),
            device="cpu",
            dtype="float32",
            resident=True,
            detail=encode_detail(
                range(len(kept)),
                None if told is None else [token.logprob for token in told],
                told,
                reply.calls,
            ),
        )


def _request(claimed: ClaimedJob, job: Job) -> CannedRequest:
    name, _, version = claimed.ref.partition("@")
    adapter = None if claimed.ref == BASE_REF else name
    return CannedRequest(claimed.job_id, adapter, version, job.agent, _text_of(job), job)


def _text_of(job: Job) -> str:
    if job.prompt_ids is not None:
        return " ".join(map(str, job.prompt_ids))
    return job.prompt if job.prompt is not None else job.messages[-1].content if job.messages else ""


def _told(words: Sequence[str], params: SamplingParams) -> tuple[TokenLogprob, ...]:
    """Each word is the most probable, and those after it are the next; they are numbered from 0."""
    known = [word.encode() for word in words]
    return tuple(
        TokenLogprob(
            id=place,
            text=word,
            logprob=-0.5,
            top=tuple(
                TokenLogprob(id=place + beside, text=known[(place + beside) % len(known)], logprob=-0.5 - beside)
                for beside in range(params.top_logprobs)
            ),
        )
        for place, word in enumerate(known)
    )
