"""Validations: answers that are whole are looked at beside each other, and only then handed on to be settled.

A slow one delays no other job's end. Knows no queue.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from lorapool.shared.tasks import cancel_and_wait
from lorapool.worker.loop.answer_forms import AnswerForms
from lorapool.worker.loop.held_jobs import HeldJob


class Validations:
    """``done`` is called with each job that was taken, whose error tells what was wrong with its answer."""

    def __init__(self, forms: AnswerForms, done: Callable[[HeldJob], None]) -> None:
        self._forms, self._done = forms, done
        self._tasks: set[asyncio.Task[None]] = set()

    def take(self, job: HeldJob) -> None:
        """Validate it, unless there is nothing to validate."""
        if not job.is_to_validate:
            self._done(job)
            return
        self._tasks.add(task := asyncio.create_task(self._validate(job)))
        task.add_done_callback(self._tasks.discard)

    async def close(self) -> None:
        """Leave them; they are not settled here."""
        await cancel_and_wait(*tuple(self._tasks))

    async def _validate(self, job: HeldJob) -> None:
        try:
            await self._forms.validate(job.schema or "", job.answer.text, job.claimed.agent)
        except Exception as error:  # noqa: BLE001  whatever it is, the job ends with it
            job.error = error
        self._done(job)
