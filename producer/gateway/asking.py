"""A request's jobs: submitted, awaited, and called back when the client that asked is gone.

A Redis server that is away is waited for a while, with the same job ids, so that nothing runs twice. Jobs are kept when
their client leaves if it said so, or gave an ``Idempotency-Key``: it may come again for the same answer. Writes no
answer.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Coroutine, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from starlette.requests import Request as HttpRequest
from starlette.types import Receive

from lorapool.producer.client.client import Client
from lorapool.producer.client.handle import JobHandle
from lorapool.producer.client.request import Request
from lorapool.producer.gateway.caller import caller_of
from lorapool.producer.gateway.completion_id import CompletionId
from lorapool.producer.gateway.errors import invalid
from lorapool.producer.gateway.models import models_of
from lorapool.producer.gateway.parameters import as_asked
from lorapool.shared.backoff import backoff
from lorapool.shared.catalog.adapter_record import AdapterRecord
from lorapool.shared.errors import Fate, InvalidRequest, LorapoolError, RedisAuthFailed, RedisUnreachable
from lorapool.shared.job import Result
from lorapool.shared.tasks import cancel_and_wait

KEEP_HEADER = "x-lorapool-on-disconnect"
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Asked:
    """``record``: what was asked; ``keep``: whether the jobs go on without their client."""

    id: CompletionId
    record: AdapterRecord
    handles: Sequence[JobHandle]
    keep: bool

    @property
    def headers(self) -> dict[str, str]:
        """What is known before the answer is."""
        job_ids = ",".join(handle.id for handle in self.handles)
        known = {"job-id": job_ids, "adapter": self.record.ref, "digest": self.record.digest}
        return {f"x-lorapool-{name}": value for name, value in known.items() if value}

    async def call_back(self) -> None:
        """Cancel those that this request submitted."""
        for handle in self.handles:
            if handle.created:
                with suppress(LorapoolError):
                    await handle.cancel()


async def submit(
    http: HttpRequest,
    kind: str,
    requests: Sequence[Request],
    body: Mapping[str, Any],
    *,
    before: CompletionId | None = None,
) -> Asked:
    """Submit a request's jobs, or find those that it submitted ``before``.

    Raises ApiError in the caller's words, and what ``Client.submit`` does.
    """
    key = http.headers.get("idempotency-key")
    answer_id = before or CompletionId.new(kind, len(requests), key, caller_of(http))
    if answer_id.answers != len(requests):
        raise invalid(f"Last-Event-ID: that stream has {answer_id.answers} answers, this request {len(requests)}")
    keep = _keeps(http, keyed=key is not None)
    client: Client = http.app.state.client
    until = time.monotonic() + http.app.state.settings.away_s
    name, first = str(requests[0].adapter), answer_id.jobs[0]  # all answers are of one version
    record = await outlasting(until, lambda: models_of(http).find(name, caller_of(http), first))
    jobs = [
        replace(each, adapter=record.ref, job_id=job_id) for each, job_id in zip(requests, answer_id.jobs, strict=True)
    ]
    try:
        handles = await outlasting(until, lambda: _sent(client, jobs))
    except InvalidRequest as error:
        raise as_asked(error, body) from None
    return Asked(answer_id, record, handles, keep)


def _keeps(http: HttpRequest, *, keyed: bool) -> bool:
    wish = http.headers.get(KEEP_HEADER)
    if wish not in (None, "keep", "cancel"):
        raise invalid(f"{KEEP_HEADER} = {wish[:20]!r}: expected keep or cancel", param=KEEP_HEADER)
    return keyed or not http.app.state.settings.cancel_on_disconnect if wish is None else wish == "keep"


async def _sent(client: Client, jobs: Sequence[Request]) -> Sequence[JobHandle]:
    if len(jobs) == 1:
        return [await client.send(jobs[0])]
    outcomes = await client.submit_many(jobs)
    handles = [outcome for outcome in outcomes if isinstance(outcome, JobHandle)]
    error = next((outcome for outcome in outcomes if isinstance(outcome, LorapoolError)), None)
    if error is None:
        return handles
    if not isinstance(error, RedisUnreachable):  # all or none: an away server is asked again for the same ids
        for handle in handles:
            if handle.created:
                await handle.cancel()
    raise error


async def outlasting(until: float, ask: Any) -> Any:
    """The answer of ``ask()``, which may be repeated while the server is away, until that time (monotonic)."""
    pauses, unsure = backoff(), False
    while True:
        try:
            return await ask()
        except RedisAuthFailed:
            raise
        except RedisUnreachable as error:
            unsure = unsure or error.fate is Fate.UNKNOWN
            pause_s = next(pauses)
            if time.monotonic() + pause_s >= until:
                error.fate = Fate.UNKNOWN if unsure else error.fate
                raise
        await asyncio.sleep(pause_s)


async def results_of(http: HttpRequest, asked: Asked) -> Sequence[Result] | None:
    """The answers, or None once the client is gone. Raises what a job of theirs ended with."""
    try:
        done = await unless_gone(http.receive, _results(http.app.state.client, asked.handles))
    except LorapoolError:
        if len(asked.handles) > 1:
            await asked.call_back()
        raise
    if done is None and not asked.keep:
        await asked.call_back()
    return done


async def _results(client: Client, handles: Sequence[JobHandle]) -> Sequence[Result]:
    if len(handles) == 1:
        return [await handles[0].result()]
    results = []
    for outcome in await client.gather(handles):
        if isinstance(outcome, LorapoolError):
            raise outcome
        results.append(outcome)
    return results


async def unless_gone(receive: Receive, work: Coroutine[Any, Any, T]) -> T | None:
    """What ``work`` returns, or None if the client left before."""
    working, leaving = asyncio.ensure_future(work), asyncio.ensure_future(gone(receive))
    try:
        await asyncio.wait((working, leaving), return_when=asyncio.FIRST_COMPLETED)
        return working.result() if working.done() else None
    finally:
        await cancel_and_wait(working, leaving)


async def gone(receive: Receive) -> None:
    """Returns once the client has left; its body must have been read."""
    while (await receive())["type"] != "http.disconnect":
        pass
