"""AnswerForms: has grammars judged before they reach the engine, and whole answers validated, off the event loop.

One of an agent at a time, so that one who sends hostile ones delays others little. Knows nothing of leases or batches.
"""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol

from lorapool.shared.errors import InvalidRequest, LorapoolError
from lorapool.worker.grammar.judge import PROCESSES
from lorapool.worker.loop.turns import Turns


class InvalidAnswer(LorapoolError):
    """The answer is whole, and does not fit its schema in what it could not be held to while it was written. It would
    be the same again: its seed is fixed."""


class Judge(Protocol):
    """Blocking, from threads."""

    def known(self, grammar: str) -> bool: ...
    def judge(self, grammar: str) -> None: ...
    def complaint(self, schema: str, answer: str) -> str: ...


class AnswerForms:
    """``judge`` None: where no engine serves grammars."""

    def __init__(self, judge: Judge | None) -> None:
        self._judge = judge
        self._threads = ThreadPoolExecutor(PROCESSES, thread_name_prefix="grammar")
        self._turns = Turns()

    async def admit(self, grammar: str, agent: str) -> None:
        """Return if it is served. Raises InvalidRequest with the reason, or what says that it is not known."""
        if self._judge is None:
            raise InvalidRequest("response_format and tool_choice: this worker's engine holds no answer to a grammar")
        if self._judge.known(grammar):
            self._judge.judge(grammar)
            return
        async with self._turns.of(agent):
            await asyncio.get_running_loop().run_in_executor(self._threads, self._judge.judge, grammar)

    async def validate(self, schema: str, answer: str, agent: str) -> None:
        """Return if the answer fits. Raises InvalidAnswer with the reason, or what says that it is not known."""
        assert self._judge is not None, "its grammar was judged"
        async with self._turns.of(agent):
            loop = asyncio.get_running_loop()
            wrong = await loop.run_in_executor(self._threads, self._judge.complaint, schema, answer)
        if wrong:
            raise InvalidAnswer(f"the answer does not fit the schema: {wrong}")
