"""SlowPrompts: prompts that take time to become tokens, made so off the event loop and beside each other.

Long ones, and chats that an adapter's own template writes, which is a program of a stranger's: a few at once, one of an
adapter at a time, and none for a while after its template had to be stopped. Knows nothing of leases or batches.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from lorapool.shared.errors import JobCancelled
from lorapool.shared.job import Job
from lorapool.shared.prompt_format import PromptFormat
from lorapool.worker.loop.turns import Turns
from lorapool.worker.text.template_process import PROCESSES, TemplateEnded

Encode = Callable[[Job, PromptFormat | None], list[int]]
LONG_AT_ONCE = 2
FIRST_BREAK_S, LONGEST_BREAK_S = 60.0, 3600.0


@dataclass(frozen=True, slots=True)
class _Break:
    """A template that was stopped: why, and until when it is left alone."""

    reason: str
    for_s: float
    until_s: float


class SlowPrompts:
    """``encode`` is called in threads, several at a time."""

    def __init__(self, encode: Encode, clock: Callable[[], float] = time.monotonic) -> None:
        self._encode, self._clock = encode, clock
        self._templates = ThreadPoolExecutor(PROCESSES, thread_name_prefix="template")
        self._long = ThreadPoolExecutor(LONG_AT_ONCE, thread_name_prefix="long-prompt")
        self._turns = Turns()
        self._breaks: dict[str, _Break] = {}  # one that is over tells how long the next lasts

    async def long(self, job: Job, form: PromptFormat | None) -> list[int]:
        """Token ids of a prompt or chat that is merely large. Raises what ``encode`` does."""
        return await asyncio.get_running_loop().run_in_executor(self._long, self._encode, job, form)

    async def foreign(self, ref: str, job: Job, form: PromptFormat, wanted: Callable[[], bool]) -> list[int]:
        """Token ids of a chat by the template of adapter ``ref``, once it is its turn.

        Raises TemplateEnded where the template had to be stopped, or lately was, JobCancelled where it is not
        ``wanted`` by then, and what ``encode`` does.
        """
        async with self._turns.of(ref):
            if not wanted():
                raise JobCancelled("cancelled on request before it ran")
            self._check(ref)
            loop = asyncio.get_running_loop()
            try:
                ids = await loop.run_in_executor(self._templates, self._encode, job, form)
            except TemplateEnded as error:
                self._break(ref, str(error))
                raise
            self._breaks.pop(ref, None)
            return ids

    def close(self) -> None:
        """Begin nothing more."""
        for threads in (self._templates, self._long):
            threads.shutdown(wait=False, cancel_futures=True)

    def _check(self, ref: str) -> None:
        broken = self._breaks.get(ref)
        if broken is not None and (left_s := broken.until_s - self._clock()) > 0:
            raise TemplateEnded(
                f"the chat template of {ref} had to be stopped ({broken.reason}): it is not tried again for "
                f"{left_s:.0f} s; prompts without messages are served"
            )

    def _break(self, ref: str, reason: str) -> None:
        before = self._breaks.get(ref)
        for_s = FIRST_BREAK_S if before is None else min(LONGEST_BREAK_S, 2 * before.for_s)
        self._breaks[ref] = _Break(reason, for_s, self._clock() + for_s)
