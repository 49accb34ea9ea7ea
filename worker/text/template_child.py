"""The process that renders adapters' chat templates: ``python -m lorapool.worker.text.template_child SECONDS``.

A template is a program that came with an adapter. transformers' sandbox keeps it from objects, but not from loops and
strings without end: so it runs here, confined. Sees no environment of the worker's, no Redis, no tensors.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from typing import Any

from lorapool.worker.confinement.limits import bound_memory, bound_time, serve
from lorapool.worker.text import chat_template
from lorapool.worker.text.chat import Chat, Plain

MORE_BYTES = 512 << 20  # on top of what an idle process takes
MAX_CHARACTERS = 4 << 20


def rendered(
    template: str, messages: Sequence[Plain], tokens: Mapping[str, Any], tools: Sequence[Plain] = ()
) -> dict[str, str]:
    """``text``, or in ``error`` what the template did: whatever that is becomes words."""
    try:
        text = chat_template.rendered(template, Chat(list(messages), list(tools)), tokens)
        text.encode()
    except Exception as error:  # noqa: BLE001  a program of someone else's may raise anything
        return {"error": f"{type(error).__name__}: {_message(error)}"}
    if len(text) > MAX_CHARACTERS:
        return {"error": f"it wrote {len(text):,} characters, at most {MAX_CHARACTERS:,} are taken"}
    return {"text": text}


def _message(error: Exception) -> str:
    try:
        return str(error)[:500]
    except Exception:  # noqa: BLE001  its words are its own program
        return "no words"


def main(seconds: float) -> None:
    """Render until the worker closes the pipe; one that computes for longer than ``seconds`` ends the process."""
    bound_memory(MORE_BYTES)

    def answer(request: dict[str, Any]) -> dict[str, Any]:
        bound_time(seconds)
        return rendered(**request)

    serve(lambda _: answer)


if __name__ == "__main__":
    main(float(sys.argv[1]))
