"""The process that judges grammars and answers: ``python -m lorapool.worker.grammar.judge_child SECONDS``.

A schema, an expression or a grammar is a stranger's program. llguidance bounds what it computes, but not how deep it
descends, and jsonschema bounds nothing: so they are tried here first, confined, with a smaller stack than an engine's.
Sees no environment of the worker's, no Redis, no tensors.
"""

from __future__ import annotations

import sys
import threading
from functools import partial
from typing import Any

from llguidance import LLTokenizer

from lorapool.shared.errors import LorapoolError
from lorapool.worker.confinement.limits import bound_memory, bound_time, serve
from lorapool.worker.grammar.compiler import vocabulary
from lorapool.worker.grammar.trial import tried
from lorapool.worker.grammar.validation import complaint

MORE_BYTES = 512 << 20  # on top of what it takes when it is ready
STACK_BYTES = 2 << 20


def judged(tokens: LLTokenizer, request: dict[str, Any]) -> dict[str, str]:
    """``wrong``: with a ``grammar``, or with the ``answer`` to a ``schema``; empty if nothing is."""
    if "grammar" not in request:
        return {"wrong": complaint(request["schema"], request["answer"])}
    try:
        tried(tokens, request["grammar"])
    except LorapoolError as error:
        return {"wrong": str(error)}
    return {"wrong": ""}


def main(seconds: float) -> None:
    """Judge until the worker closes the pipe; what computes for longer than ``seconds`` ends the process."""
    threading.stack_size(STACK_BYTES)

    def prepared(setup: dict[str, Any]) -> Any:
        tokens = vocabulary(setup["fast"], setup["eos_ids"])
        bound_memory(MORE_BYTES)
        return partial(_answer, tokens)

    def _answer(tokens: LLTokenizer, request: dict[str, Any]) -> dict[str, Any]:
        bound_time(seconds)
        reply: dict[str, Any] = {}
        thread = threading.Thread(target=lambda: reply.update(judged(tokens, request)))
        thread.start()
        thread.join()
        return reply

    serve(prepared)


if __name__ == "__main__":
    main(float(sys.argv[1]))
