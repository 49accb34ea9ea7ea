"""Asker: one line of a batch becomes jobs at low priority, and their results its answer, whatever is away meanwhile.

Job ids are made of batch and line: asked again by another feeder, after a crash or an outage, the same jobs are found;
those that Redis lost are asked again. What is full (window, quota, memory) is waited for. A batch that ends early has
its jobs cancelled. Knows neither files nor leases' scripts.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace

import structlog

from lorapool.producer.batches.answer import EXPIRED, Answer, Door, answered, given_up, job_id
from lorapool.producer.batches.lease import Held, outlasting
from lorapool.producer.batches.line import Line
from lorapool.producer.batches.room import Room
from lorapool.producer.client.client import Client
from lorapool.producer.client.handle import JobHandle
from lorapool.producer.client.request import Request
from lorapool.shared.backoff import backoff
from lorapool.shared.errors import (
    AdapterNotReady,
    JobCancelled,
    JobConflict,
    JobExpired,
    JobLost,
    LorapoolError,
    RedisAuthFailed,
    RedisFull,
    RedisUnreachable,
    ResultExpired,
    UnknownJob,
)
from lorapool.shared.job import Result

LET_GO_S = 60.0  # for a worker to let go of a cancelled job
NOT_READY_S = 2.0
FULL_S = 15.0  # at most, before a full window or quota is tried again: it may have been widened
UNSURE_S = 0.1
GONE = (JobLost, UnknownJob, ResultExpired)
log = structlog.get_logger("lorapool")


class GivenUp(Exception):
    """The batch ends before this line."""


class Asker:
    """Of one batch."""

    def __init__(self, client: Client, door: Door, held: Held) -> None:
        self._client, self._door, self._held, self._batch = client, door, held, held.batch
        self._room = Room(client, held)

    async def ask(self, line: Line) -> Answer:
        """Raises RedisAuthFailed; whatever else happens is an answer."""
        try:
            requests = await self._requests(line)
            results = await self._results(requests)
            body = self._door.answer(self._batch, line.body, results, f"{self._batch.id}-{line.number}")
            return answered(self._batch, line, 200, body, results)
        except GivenUp:
            return given_up(self._batch, line, self._held.why or EXPIRED)
        except RedisAuthFailed:
            raise
        except Exception as error:  # noqa: BLE001 - one line must not end the others
            return self._refused(line, error)

    async def look(self, lines: Sequence[Line]) -> list[Answer]:
        """The answers of lines of a batch that ends: an earlier feeder may have asked some; the rest never will be."""
        states = await outlasting(
            lambda: self._client.states([job_id(self._batch.id, line.number, 0) for line in lines])
        )
        asked = [line for line, state in zip(lines, states, strict=True) if state is not None]
        never = [line for line, state in zip(lines, states, strict=True) if state is None]
        answers = await asyncio.gather(*map(self.ask, asked))
        return [*answers, *(given_up(self._batch, line, self._held.why) for line in never)]

    def _refused(self, line: Line, error: Exception) -> Answer:
        status, body = self._door.refusal(error, line.body)
        if not isinstance(error, LorapoolError) and status >= 500:
            log.error("batch_line_failed", batch=self._batch.id, line=line.number, exc_info=error)
        return answered(self._batch, line, max(status, 400), body)

    async def _requests(self, line: Line) -> list[Request]:
        requests = await self._worded(line)
        return [
            replace(
                request,
                job_id=job_id(self._batch.id, line.number, index),
                agent=self._batch.agent,
                key=self._batch.key,
                priority="low",
                delay=None,
                stream=False,
                on_lost="resubmit",
            )
            for index, request in enumerate(requests)
        ]

    async def _worded(self, line: Line) -> list[Request]:
        """By the door; what is not ready, or away, is waited for."""
        while True:
            try:
                return await self._door.requests(self._batch, line.body)
            except RedisAuthFailed:
                raise
            except (AdapterNotReady, RedisUnreachable, RedisFull):
                if self._held.ending.is_set():
                    raise GivenUp from None
                await self._held.pause(NOT_READY_S)

    async def _results(self, requests: Sequence[Request]) -> list[Result]:
        outcomes = await asyncio.gather(*map(self._result, requests), return_exceptions=True)
        errors = [outcome for outcome in outcomes if isinstance(outcome, BaseException)]
        if errors:
            raise errors[0]
        return [outcome for outcome in outcomes if isinstance(outcome, Result)]

    async def _result(self, request: Request) -> Result:
        pauses = backoff()
        while True:
            try:
                handle = await self._sent(request)
                return await self._awaited(handle)
            except RedisAuthFailed:
                raise
            except GONE:
                log.warning("batch_job_lost", batch=self._batch.id, job=request.job_id)
            except JobExpired:
                raise GivenUp from None
            except JobCancelled:
                if self._held.why:
                    raise GivenUp from None
                raise
            except (RedisUnreachable, RedisFull):
                await self._held.pause(next(pauses))
            except LorapoolError as full:
                if (wait_s := getattr(full, "retry_after_s", None)) is None:
                    raise
                await self._held.pause(min(wait_s, FULL_S))

    async def _sent(self, request: Request) -> JobHandle:
        """The job's handle. Of a batch that ends, only of one that is there already."""
        assert request.job_id is not None
        if self._held.ending.is_set():
            [state] = await self._client.states([request.job_id])
            if state is None:
                raise GivenUp
            return self._client.get(request.job_id)
        while not self._held.sure and not self._held.ending.is_set():
            await self._held.pause(UNSURE_S)
        left_s = max(1.0, (self._batch.expires_ms - self._held.now_ms) / 1000)
        try:
            async with self._room.place(request.adapter):
                return await self._client.send(replace(request, deadline=left_s))
        except JobConflict:  # the model's name meant another version when this line was asked first
            return self._client.get(request.job_id)

    async def _awaited(self, handle: JobHandle) -> Result:
        result = asyncio.ensure_future(handle.result())
        ending = asyncio.ensure_future(self._held.ending.wait())
        try:
            await asyncio.wait((result, ending), return_when=asyncio.FIRST_COMPLETED)
            if not result.done():
                with suppress(UnknownJob):
                    await outlasting(handle.cancel)
                await asyncio.wait((result,), timeout=LET_GO_S)
            if not result.done():
                raise GivenUp
            return result.result()
        finally:
            for task in (result, ending):
                task.cancel()
            await asyncio.gather(result, ending, return_exceptions=True)
