"""TemplateProcesses: render adapters' own chat templates outside of the worker, which a hostile one cannot stop.

A few processes, each with one template at a time: as many are rendered at once. Knows nothing of tokens, nor of whose
template it is.
"""

from __future__ import annotations

import queue
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from lorapool.shared.errors import InvalidRequest
from lorapool.worker.confinement.process import ConfinedProcess, NoAnswer, ProcessEnded
from lorapool.worker.text.chat import Plain

COMPUTES_S = 5.0  # of its own time, one rendering
TIMEOUT_S = 20.0  # of ours, on a busy machine
PROCESSES = 4


class TemplateEnded(InvalidRequest):
    """The template ended its process: it took longer than it may, or too much memory. Worth remembering."""


class TemplateProcesses:
    """Safe to call from several threads; who comes when all are busy waits."""

    def __init__(self, computes_s: float = COMPUTES_S, processes: int = PROCESSES) -> None:
        self._computes_s = computes_s
        self._idle: queue.LifoQueue[ConfinedProcess] = queue.LifoQueue()  # the one that ran last is warm
        for _ in range(processes):
            module = "lorapool.worker.text.template_child"
            self._idle.put(ConfinedProcess(module, str(computes_s), timeout_s=max(TIMEOUT_S, 4 * computes_s)))

    def render(
        self, template: str, messages: Sequence[Plain], tokens: Mapping[str, Any], tools: Sequence[Plain] = ()
    ) -> str:
        """The prompt's text, special ``tokens`` being variables; ``messages`` and ``tools`` as a Chat has them.

        Raises InvalidRequest with what the template did, TemplateEnded where it had to be stopped.
        """
        try:
            with self._one() as process:
                request = {"template": template, "messages": messages, "tokens": dict(tokens), "tools": tools}
                answer = process.ask(request)
        except (ProcessEnded, NoAnswer) as error:
            raise TemplateEnded(f"it may compute for {self._computes_s:g} s, and was {error}") from None
        if "error" in answer:
            raise InvalidRequest(str(answer["error"]))
        return str(answer["text"])

    @contextmanager
    def _one(self) -> Iterator[ConfinedProcess]:
        process = self._idle.get()
        try:
            yield process
        finally:
            self._idle.put(process)
