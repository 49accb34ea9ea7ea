"""The process that renders adapters' chat templates: ``python -m lorapool.worker.template_child``.

A template is a program that came with an adapter. transformers' sandbox keeps it from objects, but not from loops and
strings without end: so it runs here, where an alarm ends the process and its memory is bounded. One request a line, as
JSON, and one answer a line. Sees no environment of the worker's, no Redis, no tensors.
"""

from __future__ import annotations

import json
import resource
import signal
import sys
from pathlib import Path
from typing import Any

from transformers.utils.chat_template_utils import render_jinja_template

MORE_BYTES = 512 << 20  # on top of what an idle process takes
MAX_CHARACTERS = 4 << 20


def answer(request: dict[str, Any]) -> dict[str, str]:
    """Render one conversation; whatever the template does becomes words."""
    try:
        [text], _ = render_jinja_template(
            [request["messages"]], chat_template=request["template"], add_generation_prompt=True, **request["tokens"]
        )
    except Exception as error:  # noqa: BLE001  a program of someone else's may raise anything
        return {"error": f"{type(error).__name__}: {error}"[:500]}
    if len(text) > MAX_CHARACTERS:
        return {"error": f"it wrote {len(text):,} characters, at most {MAX_CHARACTERS:,} are taken"}
    return {"text": text}


def main(patience_s: int) -> None:
    """Answer until the worker closes the pipe; a template that takes longer than ``patience_s`` ends the process."""
    own_bytes = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (own_bytes + MORE_BYTES, own_bytes + MORE_BYTES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    for line in sys.stdin.buffer:
        signal.alarm(patience_s)  # its default action ends the process, in the middle of whatever it does
        reply = json.dumps(answer(json.loads(line))).encode()
        signal.alarm(0)
        sys.stdout.buffer.write(reply + b"\n")
        sys.stdout.buffer.flush()


if __name__ == "__main__":
    main(int(sys.argv[1]))
