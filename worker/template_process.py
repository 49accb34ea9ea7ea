"""TemplateProcess: renders adapters' own chat templates outside of the worker, which a hostile one cannot stop.

Starts the process when it is first needed and again after a template has ended it. Knows nothing of tokens.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import weakref
from collections.abc import Mapping, Sequence
from typing import Any

from lorapool.shared.errors import InvalidRequest

PATIENCE_S = 5
_KEPT = ("PATH", "LANG", "LC_ALL", "HOME", "VIRTUAL_ENV", "PYTHONPATH", "LD_LIBRARY_PATH")  # no LORAPOOL_*: passwords


class TemplateProcess:
    """Safe to call from several threads; one template is rendered at a time."""

    def __init__(self, patience_s: int = PATIENCE_S) -> None:
        self._patience_s = patience_s
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None

    def render(self, template: str, messages: Sequence[Mapping[str, str]], tokens: Mapping[str, Any]) -> str:
        """The prompt's text, special ``tokens`` being variables. Raises InvalidRequest with what the template did."""
        request = json.dumps({"template": template, "messages": list(messages), "tokens": dict(tokens)})
        with self._lock:
            found = json.loads(self._ask(request.encode() + b"\n"))
        if "error" in found:
            raise InvalidRequest(str(found["error"]))
        return str(found["text"])

    def _ask(self, line: bytes) -> bytes:
        process = self._running()
        assert process.stdin is not None and process.stdout is not None
        try:
            process.stdin.write(line)
            process.stdin.flush()
            reply = process.stdout.readline()
        except OSError:
            reply = b""
        if not reply.endswith(b"\n"):
            self._process = None
            _end(process)
            raise InvalidRequest(f"it was stopped: it took longer than {self._patience_s} s, or too much memory")
        return reply

    def _running(self) -> subprocess.Popen[bytes]:
        if self._process is None or self._process.poll() is not None:
            self._process = subprocess.Popen(  # noqa: S603  our own module
                [sys.executable, "-m", "lorapool.worker.template_child", str(self._patience_s)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                env={name: os.environ[name] for name in _KEPT if name in os.environ},
                start_new_session=True,  # Ctrl-C is the worker's
            )
            weakref.finalize(self, _end, self._process)
        return self._process


def _end(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    process.wait()
    for pipe in (process.stdin, process.stdout):
        if pipe is not None and not pipe.closed:
            try:
                pipe.close()
            except OSError:
                continue  # what was not yet written to a dead process
