"""GrammarJudge: says of a grammar whether it is served, and of an answer whether it fits its schema.

A few confined processes, which what they judge may end: a grammar that ends two of them is refused. Verdicts on
grammars are kept. Knows neither jobs nor tokens.
"""

from __future__ import annotations

import queue
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from lorapool.worker.confinement.process import ConfinedProcess, ProcessEnded
from lorapool.worker.grammar.compiler import GrammarRefused

COMPUTES_S = 2.0  # of its own time, one judgement
TIMEOUT_S = 30.0  # of ours, on a busy machine
PROCESSES = 2
KEPT, KEPT_CHARACTERS = 4096, 16 << 20


class GrammarJudge:
    """Safe to call from several threads; who comes when all processes are busy waits. ``setup``: the tokenizer, as it
    packs itself."""

    def __init__(self, setup: Callable[[], Mapping[str, Any]], *, processes: int = PROCESSES) -> None:
        self._idle: queue.LifoQueue[ConfinedProcess] = queue.LifoQueue()  # the one that ran last is warm
        for _ in range(processes):
            module = "lorapool.worker.grammar.judge_child"
            self._idle.put(ConfinedProcess(module, str(COMPUTES_S), timeout_s=TIMEOUT_S, setup=setup))
        self._verdicts: OrderedDict[str, str] = OrderedDict()
        self._characters = 0
        self._lock = threading.Lock()

    def known(self, grammar: str) -> bool:
        """It was judged before: ``judge`` answers at once."""
        return grammar in self._verdicts

    def judge(self, grammar: str) -> None:
        """Raises GrammarRefused with the reason; NoAnswer where that is not known, for no fault of the grammar's."""
        with self._lock:
            wrong = self._verdicts.get(grammar)
        if wrong is None:
            self._keep(grammar, wrong := self._asked({"grammar": grammar}, "the grammar"))
        if wrong:
            raise GrammarRefused(wrong)

    def complaint(self, schema: str, answer: str) -> str:
        """What is wrong with an answer, empty if nothing is. Raises NoAnswer where that is not known."""
        return self._asked({"schema": schema, "answer": answer}, "it cannot be validated:")

    def _asked(self, request: Mapping[str, str], what: str) -> str:
        for again in (True, False):
            try:
                with self._one() as process:
                    return str(process.ask(request)["wrong"])
            except ProcessEnded as error:
                if not again:
                    return f"{what} takes more time, memory or depth than it is given ({COMPUTES_S:g} s): {error}"
        raise AssertionError("unreachable")

    def _keep(self, grammar: str, wrong: str) -> None:
        with self._lock:
            if grammar not in self._verdicts:
                self._verdicts[grammar] = wrong
                self._characters += len(grammar)
            while len(self._verdicts) > KEPT or self._characters > KEPT_CHARACTERS:
                oldest, _ = self._verdicts.popitem(last=False)
                self._characters -= len(oldest)

    @contextmanager
    def _one(self) -> Iterator[ConfinedProcess]:
        process = self._idle.get()
        try:
            yield process
        finally:
            self._idle.put(process)
