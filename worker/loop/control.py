"""Control: reads what others ask of this worker: cancel a job, load an adapter, validate a new one.

A request is a hint that makes things quick; what it says is also found by renewing (cancel), by jobs that come
(load) and by looking at pending adapters (validate), so that a lost one costs time only.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping

import structlog

from lorapool.shared.malformed import UNREADABLE, step_over
from lorapool.shared.queue.protocol import JobLease
from lorapool.shared.queue.worker import WorkerQueue
from lorapool.shared.server.redis_retry import retry_until_repaired
from lorapool.shared.tasks import cancel_and_wait
from lorapool.worker.adapters.validator import Validator
from lorapool.worker.loop.admission import Admission
from lorapool.worker.loop.held_jobs import HeldJobs
from lorapool.worker.loop.settler import Settler

BLOCK_S = 5.0
log = structlog.get_logger()

Handler = Callable[[Mapping[str, str]], Awaitable[None]]


class Control:
    """Reads the control stream of ``worker`` and does what each request's ``op`` asks."""

    def __init__(
        self,
        queue: WorkerQueue,
        worker: str,
        jobs: HeldJobs,
        settler: Settler,
        admission: Admission,
        validator: Validator,
    ) -> None:
        self._queue, self._worker, self._jobs, self._settler = queue, worker, jobs, settler
        self._admission, self._validator = admission, validator
        self._handlers: dict[str, Handler] = {
            "cancel": self._cancel,
            "load": self._load,
            "validate": validator.request,
            "verify": self._verify,
        }
        self._verifying: set[asyncio.Task[None]] = set()
        self._last_id = "0"

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            for entry_id, request in await retry_until_repaired(self._read, "control"):
                self._last_id = entry_id
                await self._handle(request)

    async def _read(self) -> list[tuple[str, dict[str, str]]]:
        return await self._queue.control(self._worker, self._last_id, BLOCK_S)

    async def _handle(self, request: Mapping[str, str]) -> None:
        handler = self._handlers.get(request.get("op", ""))
        if handler is None:
            step_over("control request", dict(request), ValueError("no request that this release understands"))
            return
        try:
            await handler(request)
        except UNREADABLE as error:  # a request is a hint: the next one must be heard
            step_over("control request", dict(request), error)

    async def close(self) -> None:
        """Break off what is being verified."""
        await cancel_and_wait(*self._verifying)

    async def _cancel(self, request: Mapping[str, str]) -> None:
        lease = JobLease(request.get("job_id", ""), request.get("lease", ""))
        self._jobs.mark_cancelled(lease)
        job = self._jobs.get(lease.job_id)
        if job is not None and job.lease == lease:
            await self._settler.cancel(job)

    async def _load(self, request: Mapping[str, str]) -> None:
        await self._admission.prefetch(request.get("ref", ""))

    async def _verify(self, request: Mapping[str, str]) -> None:
        """Beside the other requests: reading a large adapter must not hold up a cancellation."""
        self._verifying.add(task := asyncio.create_task(self._validator.verify(request, self._worker)))
        task.add_done_callback(self._verifying.discard)
